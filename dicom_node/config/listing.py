"""The models of a site as a program is told of them: the same keys by `--json` and by HTTP."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dicom_node.config import Site


def models_told(site: "Site") -> list[dict[str, Any]]:
    """Return a row for each model that the site runs."""
    return [
        {
            "name": name,
            "version": model.manifest.version,
            "build": model.build,
            "device_uid": model.device_uid,
            "device": site.config.models[name].device,
            "weights": "missing" if model.missing_weights else "ready" if model.manifest.weights else "none needed",
            "task": model.manifest.task,
            "folder": str(model.folder),
        }
        for name, model in site.models.items()
    ]
