"""The verb that says how often readers agreed with the models."""

from typing import Annotated

import typer

from dicom_node.cli.page import ConfigOption, JsonOption, StorageOption, site_of, table, write


def agreement(
    model: Annotated[str, typer.Argument(help="Only of this model.")] = "",
    config: ConfigOption = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how often readers accepted what each version of a model made, with the 95 % interval of that share."""
    from dicom_node.store import Store

    store = Store.of(site_of(config, storage).config.node)
    found = store.feedback.agreement(model)
    store.close()
    if as_json:
        write(
            [
                {name: getattr(one, name) for name in ("model", "model_version", "accepted", "rejected", "commented", "share", "interval")}
                for one in found
            ]
        )
        return
    rows = [(one.model, one.model_version, one.accepted, one.rejected, one.commented, _percent(one.share), _between(one.interval)) for one in found]
    columns = ("model", "version", "#accepted", "#rejected", "#commented", "#share", "#95 % interval")
    table("agreement", columns, rows, empty="no reader has said anything")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _between(interval: tuple[float, float] | None) -> str:
    return f"{interval[0]:.0%} to {interval[1]:.0%}" if interval else ""


VERBS = {"agreement": agreement}
