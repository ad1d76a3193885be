"""``vqtool ablate``."""

from pathlib import Path
from typing import Annotated

import typer

from .folders import new_folder
from .options import RunOptions, takes_run_options


@takes_run_options
def ablate(
    options: RunOptions,
    quantizers: Annotated[str, typer.Option(metavar="SPEC,SPEC,...", help="Quantizer specs.")],
    seeds: Annotated[str, typer.Option(metavar="SEED,SEED,...", help="Seeds.")] = "0",
    out: Annotated[Path | None, typer.Option(help="Folder of the runs.  [default: a new one under runs/]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print one command per run and stop.")] = False,
) -> None:
    """Train once per quantizer and seed, and compare.

    Example: vqtool ablate --quantizers standard,ema,gumbel,standard+reset --seeds 0,1,2
    """
    from ..diagnostics.ablation import AblationDirectory
    from ..diagnostics.errors import InputError
    from ..experiments import ablation

    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise InputError(f"--seeds {seeds!r} should be whole numbers with commas between them, as in 0,1,2")
    folder = out or new_folder("ablation")
    specs, numbers = [spec.strip() for spec in quantizers.split(",")], [int(seed) for seed in seeds.split(",")]
    trials = ablation.plan(
        specs,
        numbers,
        folder,
        options.arguments(),
        lambda spec, seed: options.build(quantizer__spec=spec, train__seed=seed),
    )
    if dry_run:
        for trial in trials:
            typer.echo(trial.command)
        return
    AblationDirectory(folder).write_plan(specs, numbers, [trial.run for trial in trials])
    statuses = ablation.run(trials, typer.echo)
    finished = [trial.run for trial, status in zip(trials, statuses, strict=False) if status in ("done", "skipped")]
    if finished:
        from ..reports import comparison, write_table

        frame = comparison(finished)
        write_table(frame, folder / "comparison")
        typer.echo((folder / "comparison.md").read_text(encoding="utf-8"))
    if "interrupted" in statuses:
        typer.echo("interrupted; the same command goes on")
        raise typer.Exit(130)
    typer.echo(f"runs: {folder}   report: vqtool report {folder}   live: tensorboard --logdir {folder}")
    if broken := statuses.count("broken"):
        typer.echo(f"{broken} of {len(trials)} runs broken", err=True)
        raise typer.Exit(1)
