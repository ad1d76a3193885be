"""``vqtool lint``."""

from pathlib import Path
from typing import Annotated

import typer


def lint(
    factory: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FACTORY",
            help="A function without arguments that returns a model, or (model, batch, loss, optimizer), where"
            " loss(model, batch) is a scalar. The working directory is importable.",
        ),
    ],
    ranks: Annotated[
        int,
        typer.Option(min=1, help="Processes that train together on the CPU, each with its share of the batch."),
    ] = 1,
    out: Annotated[Path | None, typer.Option(help="Run whose findings.jsonl is to hold the findings.")] = None,
) -> None:
    """Check how a vector-quantized model is wired, by three training steps on a copy.

    Exit code 1 where there is a problem; warnings alone leave it at 0.

    Example: vqtool lint train:make
    """
    from rich.console import Console

    from ..diagnostics.findings import put_findings
    from ..diagnostics.run import RunDirectory
    from ..diagnostics.wiring.checks import CHECKS
    from ..diagnostics.wiring.factory import make
    from ..diagnostics.wiring.linting import lint as check

    if ranks > 1:
        from ..diagnostics.wiring.processes import lint_on_ranks

        typer.echo(f"starting {ranks} processes")
        report, told = lint_on_ranks(factory, ranks)
        for line in told:
            typer.echo(line)
    else:
        made = make(factory)
        with Console(stderr=True).status("reading the model") as status:
            report = check(*made, tell=status.update)
    typer.echo(str(report))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        put_findings(RunDirectory(out).findings, report.findings, CHECKS)
    if any(finding.severity == "problem" for finding in report.findings):
        raise typer.Exit(1)
