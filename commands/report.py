"""``vqtool report``."""

from pathlib import Path
from typing import Annotated

import typer

from .folders import RUNS, newest


def report(
    folder: Annotated[
        Path | None, typer.Argument(metavar="RUN_OR_FOLDER", help="[default: the newest under runs/]")
    ] = None,
) -> None:
    """Draw figures, tables and one HTML page from a run, or from a folder of runs.

    Example: vqtool report runs/ablation
    """
    from ..reports import write_report

    page = write_report(folder or newest(RUNS), lambda line: typer.echo(line, err=True))
    typer.echo(f"report: {page}")
