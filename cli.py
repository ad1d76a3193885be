"""The door: the ``vqtool`` command. Everything heavy is imported inside the command that needs it."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .vqgan.config import Config

app = typer.Typer(
    name="vqtool",
    help="Watch the codebook of a vector-quantized model live and die, and compare what keeps it alive.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
RUNS = Path("runs")
RECIPE = "photos"
DEBUG = {"train.steps": 10, "train.log_every": 1, "train.every": 1, "train.validate_every": 10}


class RunOptions:
    """The options that ``train`` and ``ablate`` share, as they were given."""

    def __init__(
        self,
        recipe: Annotated[
            str | None, typer.Option(help="Named config, see `vqtool recipes`.  [default: photos]")
        ] = None,
        config: Annotated[Path | None, typer.Option(help="YAML file with settings, such as RUN/config.yaml.")] = None,
        set_: Annotated[
            list[str], typer.Option("--set", metavar="KEY=VALUE", help="Any setting, by its dotted name.")
        ] = [],  # noqa: B006
        codebook_size: Annotated[int | None, typer.Option(help="K, the number of codes.")] = None,
        data: Annotated[str | None, typer.Option(help="photos, folder:PATH, cifar10:PATH, mnist:PATH, ...")] = None,
        image_size: Annotated[int | None, typer.Option(help="Side of the crops in pixels.")] = None,
        steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
        batch_size: Annotated[int | None, typer.Option(help="Images per optimizer step.")] = None,
        every: Annotated[int | None, typer.Option(help="Optimizer steps per codebook record.")] = None,
        device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
        precision: Annotated[str | None, typer.Option(help="32, bf16 or 16.")] = None,
        devices: Annotated[int | None, typer.Option(help="How many devices.")] = None,
        skip_unreadable: Annotated[bool, typer.Option("--skip-unreadable", help="Leave broken images out.")] = False,
        download: Annotated[bool, typer.Option("--download", help="Let torchvision fetch its data sets.")] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Run 10 batches, logging each.")] = False,
    ):
        self.recipe, self.config, self.assignments = recipe, config, set_
        self.debug = debug
        self.options: dict[str, Any] = {
            "quantizer.codebook_size": codebook_size,
            "data.spec": data,
            "data.image_size": image_size,
            "train.steps": steps,
            "train.batch_size": batch_size,
            "train.every": every,
            "train.device": device,
            "train.precision": precision,
            "train.devices": devices,
            "data.skip_unreadable": skip_unreadable or None,
            "data.download": download or None,
        }

    def build(self, resumed: Path | None = None, **own: Any) -> "Config":
        """Recipe or file, then --set, then options, then ``own``; validated.

        Args:
            resumed: Config of a run to go on with, where neither recipe nor file is given.
            **own: Values by dotted name with ``__`` for the dot; None where not given.
        """
        from .diagnostics.errors import InputError
        from .experiments.recipes import recipe
        from .vqgan.settings import assignment, build_config, layer, load_config, merge, nest

        if self.recipe is not None and self.config is not None:
            raise InputError("give --recipe or --config, not both")
        file = self.config or (resumed if self.recipe is None else None)
        tree = layer(load_config(file) if file is not None else recipe(self.recipe or RECIPE).settings)
        for text in self.assignments:
            tree = merge(tree, layer(assignment(text)))
        given = self.options | (DEBUG if self.debug else {})
        given |= {name.replace("__", "."): value for name, value in own.items()}
        for name, value in given.items():
            if value is not None:
                tree = merge(tree, layer(nest(name, value)))
        return build_config(tree)

    def arguments(self) -> list[str]:
        """The options again, as ``vqtool train`` takes them."""
        words = []
        if self.recipe is not None:
            words += ["--recipe", self.recipe]
        if self.config is not None:
            words += ["--config", str(self.config)]
        for text in self.assignments:
            words += ["--set", text]
        for name, value in self.options.items():
            option = "--data" if name == "data.spec" else "--" + name.partition(".")[2].replace("_", "-")
            if value is not None:
                words += [option] if value is True else [option, str(value)]
        return [*words, "--debug"] if self.debug else words


def takes_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options of ``RunOptions``, handed to it as its argument ``options``."""
    shared = list(inspect.signature(RunOptions, eval_str=True).parameters.values())
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "options"]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        options = RunOptions(**{p.name: values.pop(p.name) for p in shared})
        command(options=options, **values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    wrapper.__signature__ = inspect.Signature([p.replace(kind=keyword) for p in own + shared])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in own + shared}
    return wrapper


@app.command()
@takes_run_options
def train(
    options: RunOptions,
    quantizer: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="standard, ema, gumbel, entropy; ema+reset; gumbel:kl_weight=0.01."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, data order and noise.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.  [default: a new one under runs/]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, or with the newest.")] = False,
) -> None:
    """Train a VQGAN and record its codebook.

    Example: vqtool train --quantizer ema+reset --codebook-size 1024 --steps 1000
    """
    from .vqgan.trainer import train as run_training

    folder = out or (_newest(RUNS) if resume else _new_folder(quantizer))
    _check_folder(folder, resume)
    before = folder / "config.yaml" if resume and (folder / "config.yaml").exists() else None
    config = options.build(before, quantizer__spec=quantizer, train__seed=seed)
    if resume and (folder / "DONE").exists() and before is not None and _unchanged(config, before):
        typer.echo(f"{folder} is finished; nothing to resume")
        return
    if run_training(config, folder, resume) == "interrupted":
        typer.echo(f"interrupted; go on with: vqtool train --resume --out {folder}")
        raise typer.Exit(130)
    typer.echo(f"run: {folder}   report: vqtool report {folder}   live: tensorboard --logdir {folder}")


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
    from .diagnostics.errors import unknown
    from .diagnostics.run import RunDirectory
    from .vqgan.evaluation import evaluate_run

    for kind, value, allowed in (
        ("device", device, ("auto", "cpu", "cuda")),
        ("checkpoint", checkpoint, ("last", "best")),
    ):
        if value not in allowed:
            raise unknown(kind, value, allowed)
    figures = evaluate_run(RunDirectory(run), split, checkpoint, device)
    missing = figures.pop("missing")
    for name, value in figures.items():
        typer.echo(f"{name:<20} {'-' if value is None else f'{value:.6g}' if isinstance(value, float) else value}")
    for name, reason in missing.items():
        typer.echo(f"{name}: {reason}")


@app.command()
def recipes() -> None:
    """List the named configs with their price.

    Example: vqtool recipes
    """
    from .experiments.recipes import RECIPES

    for name, (about, price, _) in RECIPES.items():
        typer.echo(f"{name}\n  {about}\n  Price: {price}")


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


def _check_folder(folder: Path, resume: bool) -> None:
    from .diagnostics.errors import InputError

    if resume and not folder.is_dir():
        raise InputError(f"nothing to resume: there is no folder {folder}")
    if resume and any(folder.iterdir()) and not (folder / "config.yaml").exists():
        raise InputError(f"nothing to resume: {folder} is not a run, it has no config.yaml")
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"run folder {folder} exists: choose another --out, or add --resume to go on with it")
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise InputError(f"run folder {folder} cannot be written: {nearest} is not a folder that takes files")


def _unchanged(config: "Config", path: Path) -> bool:
    from .vqgan.settings import build_config, load_config

    return build_config(load_config(path)) == config


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
