"""The options that commands share, and the settings that they make. Everything heavy is imported where it is needed."""

import copy
import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..diagnostics.errors import InputError
    from ..vqgan.autoencoder.settings import AutoencoderConfig
    from ..vqgan.training.settings import RunConfig
    from ..vqgan.transformer.settings import TransformerConfig

RECIPE = {"vqgan": "photos", "transformer": "codes"}
DEBUG = {"train.steps": 10, "train.log_every": 1, "train.every": 1, "train.validate_every": 10}


class RunOptions:
    """The options that ``train`` and ``ablate`` share, as they were given."""

    def __init__(
        self,
        recipe: Annotated[
            str | None, typer.Option(help="Named config, see `vqtool recipes`.  [default: photos, codes]")
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

    def build(self, resumed: Path | None = None, **own: Any) -> "AutoencoderConfig":
        """The settings of a first stage; see ``_tree``."""
        from ..vqgan.autoencoder.settings import build_autoencoder_config

        return build_autoencoder_config(self._tree("vqgan", resumed, own))

    def build_transformer(self, resumed: Path | None = None, **own: Any) -> "TransformerConfig":
        """The settings of a second stage; see ``_tree``."""
        from ..vqgan.transformer.settings import build_transformer_config

        return build_transformer_config(self._tree("transformer", resumed, own))

    def _tree(self, stage: str, resumed: Path | None, own: dict[str, Any]) -> dict[str, Any]:
        """Recipe or file, then --set, then options, then ``own``.

        Args:
            stage: Whose settings.
            resumed: Config of a run to go on with, where neither recipe nor file is given.
            own: Values by dotted name with ``__`` for the dot; None where not given.
        """
        from ..diagnostics.errors import InputError
        from ..diagnostics.run import load_config
        from ..experiments.recipes import recipe
        from ..vqgan.config.layers import assignment, layered, nest

        if self.recipe is not None and self.config is not None:
            raise InputError("give --recipe or --config, not both")
        file = self.config or (resumed if self.recipe is None else None)
        name = self.recipe or RECIPE[stage]
        base = load_config(file) if file is not None else recipe(name, stage).settings
        given = self.options | (DEBUG if self.debug else {})
        if stage == "transformer":
            given["codebook_size"] = given.pop("quantizer.codebook_size")
        given |= {name.replace("__", "."): value for name, value in own.items()}
        values = [nest(name, value) for name, value in given.items() if value is not None]
        return layered([base, *map(assignment, self.assignments), *values])

    def for_stage(self, stage: str) -> "RunOptions":
        """The same with what belongs to one stage of two: its settings, and the recipe that goes with the first one's.

        Raises:
            InputError: A setting is of neither stage.
        """
        from ..diagnostics.errors import InputError
        from ..experiments.recipes import recipe

        if self.config is not None:
            raise InputError("--config is for one stage: with --stage all give --recipe and --set")
        kinds = config_kinds()
        other = next(kind for name, kind in kinds.items() if name != stage)
        one = copy.copy(self)
        branches = {text: text.partition("=")[0].partition(".")[0] for text in self.assignments}
        foreign = other.model_fields.keys() - kinds[stage].model_fields.keys()
        one.assignments = [text for text, branch in branches.items() if branch not in foreign]
        if stage == "transformer":
            one.recipe = recipe(self.recipe or RECIPE["vqgan"]).then
        return one

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


def config_kinds() -> "dict[str, type[RunConfig]]":
    """The trees of settings by their stages."""
    from ..vqgan.autoencoder.settings import AutoencoderConfig
    from ..vqgan.transformer.settings import TransformerConfig

    return {"vqgan": AutoencoderConfig, "transformer": TransformerConfig}


#: Parameters whose option has another name.
_OPTIONS = {"first_stage": "--from"}


def in_options(error: "InputError") -> str:
    """What ``error`` tells, with the options, ``--size`` or ``--set a.b``, in place of its parameters and settings."""
    line = str(error)
    for name in error.parameters:
        option = _OPTIONS.get(name) or (f"--set {name}" if "." in name else f"--{name.replace('_', '-')}")
        line = re.sub(rf"\b{re.escape(name)}\b", option, line, count=1)
    return line


def check_names(device: str, checkpoint: str) -> None:
    """Refuse a device or a checkpoint that there cannot be.

    Raises:
        InputError: The name is none of the allowed ones.
    """
    from ..diagnostics.errors import unknown

    for kind, value, allowed in (
        ("device", device, ("auto", "cpu", "cuda")),
        ("checkpoint", checkpoint, ("last", "best")),
    ):
        if value not in allowed:
            raise unknown(kind, value, allowed)
