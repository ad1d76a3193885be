"""The door: the ``vqtool`` command. Everything heavy is imported inside the command that needs it."""

import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .experiments.options import RunOptions, takes_run_options

if TYPE_CHECKING:
    from .vqgan.config import RunConfig

app = typer.Typer(
    name="vqtool",
    help="Watch the codebook of a vector-quantized model live and die, and compare what keeps it alive.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
RUNS = Path("runs")


@app.command()
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
    from .diagnostics.errors import InputError

    first = {"quantizer__spec": quantizer, "train__seed": seed}
    second = {"first_stage": first_stage, "condition__kind": condition, "condition__stage": condition_from}
    folder = out or (_newest(RUNS) if resume else _new_folder(stage or quantizer))
    _check_folder(folder, resume, both=stage == "all")
    stage = _stage(stage, options.config or folder / "config.yaml")
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
    from .diagnostics.errors import unknown
    from .vqgan.settings import load_config

    stage = named or (load_config(config).get("stage", "vqgan") if config.is_file() else "vqgan")
    if stage not in (stages := ("vqgan", "transformer", "all")):
        raise unknown("stage", stage, stages)
    return stage


def _train_both(options: RunOptions, first: dict[str, Any], second: dict[str, Any], folder: Path, resume: bool) -> None:
    """Both stages, one after the other, in ``folder/first-stage`` and ``folder/transformer``."""
    from .diagnostics.errors import InputError

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
    from .vqgan.launch import train as run_training

    before = folder / "config.yaml" if resume and (folder / "config.yaml").exists() else None
    config = build(before, **own)
    if resume and (folder / "DONE").exists() and before is not None and _unchanged(config, before):
        typer.echo(f"{folder} is finished; nothing to resume")
        return
    if run_training(config, folder, resume) == "interrupted":
        typer.echo(f"interrupted; go on with: vqtool train --resume --out {folder}")
        raise typer.Exit(130)


@app.command()
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
    from .diagnostics.errors import InputError
    from .experiments import ablation

    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise InputError(f"--seeds {seeds!r} should be whole numbers with commas between them, as in 0,1,2")
    folder = out or _new_folder("ablation")
    trials = ablation.plan(
        [spec.strip() for spec in quantizers.split(",")],
        [int(seed) for seed in seeds.split(",")],
        folder,
        options.arguments(),
        lambda spec, seed: options.build(quantizer__spec=spec, train__seed=seed),
    )
    if dry_run:
        for trial in trials:
            typer.echo(trial.command)
        return
    statuses = ablation.run(trials, typer.echo)
    finished = [trial.run for trial, status in zip(trials, statuses, strict=False) if status in ("done", "skipped")]
    if finished:
        from .reports import comparison, write_table

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


@app.command()
def report(
    folder: Annotated[
        Path | None, typer.Argument(metavar="RUN_OR_FOLDER", help="[default: the newest under runs/]")
    ] = None,
) -> None:
    """Draw figures, tables and one HTML page from a run, or from a folder of runs.

    Example: vqtool report runs/ablation
    """
    from .reports import write_report

    page = write_report(folder or _newest(RUNS), lambda line: typer.echo(line, err=True))
    typer.echo(f"report: {page}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    checkpoint: Annotated[str, typer.Option(help="last or best.")] = "last",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Measure a run over a whole split and write RUN/evaluation-SPLIT.json.

    Example: vqtool evaluate runs/mine --split validation
    """
    from .diagnostics.run import RunDirectory
    from .vqgan.launch import evaluate as evaluate_run

    _check_names(device, checkpoint)
    figures = evaluate_run(RunDirectory(run), split, checkpoint, device)
    missing = figures.pop("missing")
    for name, value in figures.items():
        typer.echo(f"{name:<20} {'-' if value is None else f'{value:.6g}' if isinstance(value, float) else value}")
    for name, reason in missing.items():
        typer.echo(f"{name}: {reason}")


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="Run folder of a transformer.")],
    what: Annotated[str, typer.Option(help="samples, or completions of images of a split.")] = "samples",
    count: Annotated[int | None, typer.Option(min=1, help="How many.  [default: what fills a panel]")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and batch give the same images.")] = 0,
    temperature: Annotated[float, typer.Option(help="Divides the logits.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest codes.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the nucleus: the likeliest codes that reach p.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest code.")] = False,
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance; 1: none.")] = 1.0,
    classes: Annotated[
        str | None, typer.Option(metavar="CLASS,CLASS,...", help="Names or numbers.  [default: all]")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Pixels of larger images, drawn through a sliding window.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(metavar="HxW", help="Its size in codes.  [default: the training grid]")
    ] = None,
    split: Annotated[str, typer.Option(help="Where originals and spatial conditions come from.")] = "validation",
    separate: Annotated[bool, typer.Option("--separate", help="Each image as a file of its own, too.")] = False,
    checkpoint: Annotated[str, typer.Option(help="last or best.")] = "last",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder.  [default: RUN/samples]")] = None,
) -> None:
    """Sample images from a transformer.

    Example: vqtool sample runs/mine --classes cat,dog --guidance 2 --top-k 100
    """
    from .diagnostics.errors import unknown
    from .diagnostics.run import RunDirectory
    from .vqgan.engine import available_device
    from .vqgan.transformer.request import KINDS, Request
    from .vqgan.transformer.sample import sample as sample_images
    from .vqgan.transformer.trained import Trained

    _check_names(device, checkpoint)
    if what not in KINDS:
        raise unknown("kind of sample", what, KINDS)
    request = Request(
        what=what,
        count=count,
        batch=batch,
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        greedy=greedy,
        guidance=guidance,
        classes=tuple(name.strip() for name in classes.split(",")) if classes else (),
        size=_two_numbers("--size", size),
        window=_two_numbers("--window", window),
        split=split,
        separate=separate,
    )
    trained = Trained.load(RunDirectory(run), checkpoint, available_device(device))
    for path in sample_images(trained, request, out or run / "samples"):
        typer.echo(f"images: {path}")


def _two_numbers(option: str, text: str | None) -> tuple[int, int] | None:
    """``64x96`` -> (64, 96)."""
    from .diagnostics.errors import InputError

    if text is None:
        return None
    numbers = text.lower().split("x")
    if len(numbers) != 2 or not all(number.isdecimal() and int(number) for number in numbers):
        raise InputError(f"{option} {text!r} should be height and width, as in {option} 64x96")
    return int(numbers[0]), int(numbers[1])


def _check_names(device: str, checkpoint: str) -> None:
    from .diagnostics.errors import unknown

    for kind, value, allowed in (
        ("device", device, ("auto", "cpu", "cuda")),
        ("checkpoint", checkpoint, ("last", "best")),
    ):
        if value not in allowed:
            raise unknown(kind, value, allowed)


@app.command()
def recipes() -> None:
    """List the named configs with their price.

    Example: vqtool recipes
    """
    from .experiments.recipes import RECIPES

    for name, recipe in RECIPES.items():
        typer.echo(f"{name} ({recipe.stage})\n  {recipe.about}\n  Price: {recipe.price}")


def _new_folder(name: str | None) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return RUNS / f"{stamp}-{(name or 'standard').replace(':', ',')}"


def _newest(folder: Path) -> Path:
    """The run or folder of runs in ``folder`` that was begun last."""
    from .diagnostics.errors import InputError

    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if not found:
        raise InputError(f"no runs under {folder}/: name a folder, or make a run with `vqtool train`")
    return max(found, key=lambda path: path.stat().st_mtime)


def _check_folder(folder: Path, resume: bool, *, both: bool) -> None:
    from .diagnostics.errors import InputError

    if resume and not folder.is_dir():
        raise InputError(f"nothing to resume: there is no folder {folder}")
    if resume and not both and any(folder.iterdir()) and not (folder / "config.yaml").exists():
        raise InputError(f"nothing to resume: {folder} is not a run, it has no config.yaml")
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"run folder {folder} exists: choose another --out, or add --resume to go on with it")
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise InputError(f"run folder {folder} cannot be written: {nearest} is not a folder that takes files")


def _unchanged(config: "RunConfig", path: Path) -> bool:
    from .vqgan.settings import load_config, validated

    return validated(type(config), load_config(path)) == config


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 130 interrupted."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except typer.exceptions.TyperException as error:
        code = _complain(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _complain("interrupted", 130)
    except (ValueError, RuntimeError) as error:
        from .diagnostics.errors import InputError, RunFailedError

        if not isinstance(error, InputError | RunFailedError):
            raise
        code = _complain(str(error), 2 if isinstance(error, InputError) else 1)
    sys.exit(code)


def _complain(line: str, code: int) -> int:
    print(f"vqtool: {line}", file=sys.stderr)
    return code
