"""Documents that cannot drift: what the program can say of itself it writes between markers, and a test holds each document to it.

`python -m tests.documents` writes every generated part anew.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.documents import conformance, methods, objects, program, recognition, tree, workitems
from tests.documents.text import rendered

ROOT = Path(__file__).parents[2]

GENERATORS: Mapping[str, Callable[[], str]] = {
    "services": conformance.services,
    "negotiation": conformance.negotiation,
    "query-keys": conformance.query_keys,
    "verification-syntaxes": conformance.verification_syntaxes,
    "association": conformance.association,
    "scp-statuses": conformance.scp_statuses,
    "scu-contexts": conformance.scu_contexts,
    "scu-statuses": conformance.scu_statuses,
    "scu-rejections": conformance.scu_rejections,
    "codes": conformance.codes,
    "ups-states": workitems.states,
    "ups-services": workitems.services,
    "segmentation": lambda: objects.iod("SEG", "segmentation"),
    "report": lambda: objects.iod("SR", "comprehensive-3d-sr"),
    "verified-report": objects.verified_report,
    "derived-image": lambda: objects.iod("DER", "ct-image"),
    "parametric-map": lambda: objects.iod("PM", "parametric-map"),
    "presentation-state": lambda: objects.iod("PR", "grayscale-softcopy-presentation-state"),
    "key-objects": lambda: objects.iod("KO", "key-object-selection-document"),
    "content-tree": tree.content_tree,
    "methods": methods.methods,
    "recognition-facets": recognition.facets,
    "recognition-sources": recognition.sources,
    "recognition-sequences": recognition.sequences,
    "recognition-bodies": recognition.bodies,
    "node-keys": program.node_keys,
    "manifest-keys": program.manifest_keys,
    "conditions": program.conditions,
    "verbs": program.verbs,
    "measurement-columns": program.measurement_columns,
    "log-events": program.log_events,
    "storage": program.storage,
    "refused-findings": program.refused_findings,
    "refused-manifests": program.refused_manifests,
}


def documents() -> list[Path]:
    """Return every document of the project, the README first."""
    return [path for pattern in ("README.md", "CHANGELOG.md", "docs/*.md", "models/*/README.md") for path in sorted(ROOT.glob(pattern))]


def regenerate() -> list[Path]:
    """Write every generated part anew, and return the documents that changed."""
    changed = []
    for path in documents():
        text = path.read_text()
        now = rendered(text, GENERATORS)
        if now != text:
            path.write_text(now)
            changed.append(path)
    return changed
