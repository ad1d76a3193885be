"""Settings with final figures for TensorBoard's HPARAMS page: first what was set and what one looks for."""

from collections.abc import Mapping
from typing import Any

from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[attr-defined]  # generated
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ...diagnostics.run import flatten
from ..config.base import Settings
from ..quantizers.settings import QuantizerChoice
from .settings import RunConfig

#: What a run is known by, of either stage. TensorBoard ticks the first five columns.
FIRST = (
    "quantizer.spec",
    "quantizer.codebook_size",
    "transformer.size",
    "condition.kind",
    "train.seed",
    "optimizer.lr",
    "train.steps",
    "data.spec",
)
#: What changes no result: where things lie, what is looked at and how often. Left out but where it was set.
UNTOLD = {
    "stage",
    "data.cache",
    "data.download",
    "train.device",
    "train.devices",
    "train.tensorboard",
    "train.every",
    "train.log_every",
    "train.checkpoint_every",
    "train.validate_every",
    "train.validate_images",
}
FIRST_FIGURES = ("codes_used_split", "perplexity_split", "psnr", "nll", "bits_per_dim", "total_variation")
#: How much was looked at: told after what was seen.
LAST_FIGURES = (
    "codes_used_ceiling",
    "codes_in_use_low_split",
    "codes_in_use_chao1_split",
    "coverage_split",
    "perplexity_corrected_split",
    "perplexity_low_split",
    "perplexity_high_split",
    "images",
    "samples",
    "codebook_size",
    "tokens",
    "tokens_per_code",
)


def changed(settings: Settings) -> set[str]:
    """The dotted names of the settings that are not as by default.

    What is set of a quantizer and its remedies is in the spec: runs that differ in it differ in nothing else.
    """
    names = set()
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            if not isinstance(settings, QuantizerChoice):
                names |= {f"{name}.{leaf}" for leaf in changed(value)}
        elif value != field.default:
            names.add(name)
    return names


def told_first(config: RunConfig) -> tuple[list[str], list[str]]:
    """The names of the settings in the order of their columns: what is told first, and what then.

    First ``FIRST`` and then what is not as by default; the rest, without ``UNTOLD``, after that. Both by name, as
    TensorBoard has them. The runs of one ablation have the same columns.
    """
    names, set_here = flatten(config.model_dump()), changed(config)
    always = [name for name in FIRST if name in names]
    first = [*always, *sorted(set_here - set(always))]
    return first, sorted(names.keys() - set(first) - UNTOLD)


def figures_first(figures: Mapping[str, Any]) -> list[str]:
    """The names of the figures in the order of their columns; None is a figure that was not to be had in this run."""
    names = [name for name, value in figures.items() if value is None or isinstance(value, int | float)]
    return sorted(names, key=lambda name: (name in LAST_FIGURES, [*FIRST_FIGURES, name].index(name)))


def add_hparams(writer: SummaryWriter, config: RunConfig, figures: Mapping[str, Any], step: int) -> None:
    """Settings with the figures of the test split, in the same run as everything else."""
    first, then = told_first(config)
    values = flatten(config.model_dump(mode="json"))
    plain = {
        _key(name): value if isinstance(value := values[name], bool | int | float | str) else str(value)
        for name in [*first, *then]
    }
    tags = {name: f"test/{name}" for name in figures_first(figures)}
    experiment, start, end = hparams(plain, dict.fromkeys(tags.values()))
    for summary in (_in_order(experiment, first, then), start, end):
        writer._get_file_writer().add_summary(summary)
    for name, tag in tags.items():
        if figures[name] is not None:
            writer.add_scalar(tag, figures[name], step)


def _key(name: str) -> str:
    """The name by which TensorBoard sorts the columns, the same for a setting in every run; it is not shown."""
    return f"{FIRST.index(name)} {name}" if name in FIRST else name


def _in_order(experiment: Any, first: list[str], then: list[str]) -> Any:
    """The summary of an experiment, to have the columns shown in the order given.

    TensorBoard (2.15 and later) sorts them by ``differs``, a hint at what is worth seeing, and then by key.
    """
    about = experiment.value[0].metadata.plugin_data
    told = metadata.parse_experiment_plugin_data(about.content)
    for info, name in zip(told.hparam_infos, [*first, *then], strict=True):
        info.display_name, info.differs = name, name in first
    data = HParamsPluginData(experiment=told, version=metadata.PLUGIN_DATA_VERSION)
    about.content = data.SerializeToString()
    return experiment
