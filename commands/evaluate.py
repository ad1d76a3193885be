"""``vqtool evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from .options import check_names


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    checkpoint: Annotated[str, typer.Option(help="last or best.")] = "last",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Measure a run over a whole split and write RUN/evaluation-SPLIT.json.

    Example: vqtool evaluate runs/mine --split validation
    """
    from ..diagnostics.run import RunDirectory
    from ..vqgan.launch import evaluate as evaluate_run

    check_names(device, checkpoint)
    figures = evaluate_run(RunDirectory(run), split, checkpoint, device)
    missing, usage = figures.pop("missing"), figures.pop("usage", None)
    for name, value in figures.items():
        typer.echo(f"{name:<26} {'-' if value is None else f'{value:.6g}' if isinstance(value, float) else value}")
    if usage is not None:
        typer.echo(f"usage: {usage}")
    for name, reason in missing.items():
        typer.echo(f"{name}: {reason}")
