"""The verb that tries how people are told."""

import time
from typing import Annotated

import typer

from dicom_node.cli.page import ConfigOption, StorageOption, site_of


def notify(
    test: Annotated[str, typer.Option("--test", help="The name of an entry of [[notify]].")],
    config: ConfigOption = None,
    storage: StorageOption = None,
) -> None:
    """Send a test message to who is told when something is wrong: a post, mail, or HL7 v2."""
    from dicom_node.notify import send_test

    to = send_test(test, site_of(config, storage).config, time.time())
    typer.echo(f"{to} took a test message")


VERBS = {"notify": notify}
