"""``vqtool train``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .folders import RUNS, check_folder, new_folder, newest
from .options import RunOptions, takes_run_options

if TYPE_CHECKING:
    from ..vqgan.training.settings import RunConfig


@takes_run_options
def train(
    options: RunOptions,
    quantizer: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="standard, ema, gumbel, entropy; ema+reset; gumbel:kl_weight=0.01."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, data order and noise.")] = None,
    stage: Annotated[
        str | None, typer.Option(help="vqgan, transformer or all (one after the other).  [default: vqgan]")
    ] = None,
    first_stage: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="For the transformer: finished run of the first stage.")
    ] = None,
    condition: Annotated[
        str | None, typer.Option(help="For the transformer: none, class, coordinates or spatial.")
    ] = None,
    condition_from: Annotated[
        Path | None, typer.Option(metavar="RUN", help="For a spatial condition: finished run of its first stage.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.  [default: a new one under runs/]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, or with the newest.")] = False,
) -> None:
    """Train a VQGAN and record its codebook, or a transformer over the codes of a finished one.

    Example: vqtool train --quantizer ema+reset --codebook-size 1024 --steps 1000

    Example: vqtool train --stage transformer --from runs/mine --condition class
    """
    from ..diagnostics.errors import InputError
    from ..diagnostics.run import RunDirectory

    first = {"quantizer__spec": quantizer, "train__seed": seed}
    second = {"first_stage": first_stage, "condition__kind": condition, "condition__stage": condition_from}
    folder = out or (newest(RUNS) if resume else new_folder(stage or quantizer))
    check_folder(folder, resume, both=stage == "all")
    stage = _stage(stage, options.config or RunDirectory(folder).config)
    if stage == "vqgan" and any(second.values()):
        raise InputError("--from, --condition and --condition-from are for --stage transformer")
    if stage == "transformer" and quantizer:
        raise InputError(
            "--quantizer is for the first stage: the transformer takes the codes of the run named by --from"
        )
    second["train__seed"] = seed
    if stage == "all":
        _train_both(options, first, second, folder, resume)
    elif stage == "transformer":
        _train(options.build_transformer, second, folder, resume)
    else:
        _train(options.build, first, folder, resume)
    typer.echo(f"run: {folder}   report: vqtool report {folder}   live: tensorboard --logdir {folder}")


def _stage(named: str | None, config: Path) -> str:
    """Which stage is meant: the one that is named, else that of a config file, else the first."""
    from ..diagnostics.errors import unknown
    from ..diagnostics.run import STAGES, load_config

    stage = named or (load_config(config) if config.is_file() else {}).get("stage", STAGES[0])
    if stage not in (stages := (*STAGES, "all")):
        raise unknown("stage", stage, stages)
    return stage


def _train_both(options: RunOptions, first: dict[str, Any], second: dict[str, Any], folder: Path, resume: bool) -> None:
    """Both stages, one after the other, in ``folder/first-stage`` and ``folder/transformer``."""
    from ..diagnostics.errors import InputError

    if second["first_stage"]:
        raise InputError("--from names a finished first stage: with --stage all it is trained here")
    one, two = options.for_stage("vqgan"), options.for_stage("transformer")
    second = {**second, "first_stage": folder / "first-stage"}
    # What is wrong with the settings of the second stage shows before the first is trained.
    two.build_transformer(**second, codebook_size=one.build(**first).quantizer.codebook_size)
    for build, own, path in (
        (one.build, first, folder / "first-stage"),
        (two.build_transformer, second, folder / "transformer"),
    ):
        _train(build, own, path, resume and path.exists())


def _train(build: Callable[..., "RunConfig"], own: dict[str, Any], folder: Path, resume: bool) -> None:
    """Train one stage into ``folder``, or go on with it."""
    from ..diagnostics.run import RunDirectory
    from ..vqgan.config.layers import validated
    from ..vqgan.launch import train as run_training

    run = RunDirectory(folder)
    going_on = resume and run.has_config
    config = build(run.config if going_on else None, **own)
    if going_on and run.is_finished and validated(type(config), run.read_config()) == config:
        typer.echo(f"{folder} is finished; nothing to resume")
        return
    if run_training(config, folder, resume) == "interrupted":
        typer.echo(f"interrupted; go on with: vqtool train --resume --out {folder}")
        raise typer.Exit(130)
