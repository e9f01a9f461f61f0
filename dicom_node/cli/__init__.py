"""The verbs: verbs act, plural nouns list, and every listing has `--json`.

Nothing heavy is imported here: each verb imports what it needs when it is called, so that `dicom-node --help` answers at once.
"""

import sys

import typer

from dicom_node.cli import act, demo, develop, fetch, look, notify, operate, people, readers
from dicom_node.cli.page import silence_libraries
from dicom_node.domain import NodeError, fault

app = typer.Typer(
    name="dicom-node",
    help="A DICOM node that analyses studies beside a PACS. Research use only; not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for panel, module in (
    ("operate", operate),
    ("operate", people),
    ("operate", notify),
    ("look", look),
    ("look", readers),
    ("act", act),
    ("act", fetch),
    ("develop", develop),
    ("develop", demo),
):
    for verb, function in module.VERBS.items():
        app.command(verb, rich_help_panel=panel)(function)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", help="Show the version and end."),
) -> None:
    context.obj = debug
    silence_libraries()
    if version:
        from dicom_node import __version__

        typer.echo(f"dicom-node {__version__}")
        raise typer.Exit


def main() -> None:
    """Run a verb; an error is one sentence, its cause and what to do next."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the outermost frame of this process: the text of an error that nobody foresaw may quote a header
        if "--debug" in sys.argv:
            raise
        said, hint = _told(error)
        typer.echo(f"error: {said}", err=True)
        if hint:
            typer.echo(f"hint: {hint}", err=True)
        sys.exit(1)


def _told(error: Exception) -> tuple[str, str]:
    if isinstance(error, NodeError):
        return str(error), error.hint
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}", "Look at the path and who may write there."
    return fault(error), "Run it again as `dicom-node --debug …` to see where, and tell those who maintain it."
