"""Records as TensorBoard sees them: scalars, histograms, the collapse heatmap, the codebook in the projector."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import stats
from .records import CodebookRecord

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

#: Anchors of a perceptually even, colour-blind-safe ramp from dark blue to yellow (cividis, Nunez et al. 2018).
RAMP = np.array(
    [[0, 32, 77], [57, 72, 108], [100, 104, 112], [126, 124, 120], [156, 146, 117], [207, 184, 94], [255, 234, 70]]
)
#: Codes without a hit stand out from every colour of the ramp.
DEAD = np.array([255, 255, 255])
SIDE = 512


class TensorBoardSink:
    """Writes each record to TensorBoard.

    Args:
        writer: Open summary writer; it stays the caller's to close.
        detail_every: Records between two sets of histograms and images, which cost far more than scalars.
    """

    def __init__(self, writer: "SummaryWriter", detail_every: int = 10):
        self.writer = writer
        self.detail_every = detail_every
        self._heatmaps: dict[str, Heatmap] = {}
        self._records = 0

    def write(self, record: CodebookRecord) -> None:
        """Scalars of every record, and the distributions over codes of every ``detail_every``-th."""
        for name, value in _scalars(record).items():
            self.writer.add_scalar(f"codebook/{record.codebook}/{name}", value, record.step)
        heatmap = self._heatmaps.setdefault(record.codebook, Heatmap())
        heatmap.add(record.hits)
        if self._records % self.detail_every == 0:
            for name in ("norm", "grad_norm", "pull_norm"):
                if len(values := _finite(getattr(record, name))):
                    self.writer.add_histogram(f"codebook/{record.codebook}/{name}", values, record.step)
            self.writer.add_histogram(
                f"codebook/{record.codebook}/log10(hits + 1)", np.log10(record.hits + 1), record.step
            )
            title = f"codebook/{record.codebook}/hits: code x time, white = none"
            self.writer.add_image(title, heatmap.image(), record.step, dataformats="HWC")
        self._records += 1

    def flush(self) -> None:
        """Have TensorBoard's files brought up to date."""
        self.writer.flush()


def _scalars(record: CodebookRecord) -> dict[str, float]:
    K, tokens = len(record.hits), int(record.hits.sum())
    scalars = {
        "codes_used_window": float(stats.codes_used(record.hits)),
        "codes_used_window_ceiling": stats.expected_codes_used(K, tokens),
        "perplexity_window": float(stats.perplexity(record.hits)),
        "gini_window": float(stats.gini(record.hits)),
        "tokens_window": float(tokens),
        "resets_window": float(record.resets.sum()),
        "distortion_window": float(np.nansum(record.distortion * record.hits) / max(1, tokens)),
    }
    for name in ("norm", "drift", "grad_norm", "pull_norm"):
        if len(values := _finite(getattr(record, name))):
            scalars[f"{name}_mean"] = float(values.mean())
    return {name: value for name, value in scalars.items() if np.isfinite(value)}


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    return values[np.isfinite(values)]


class Heatmap:
    """Hits, code x time, in at most ``SIDE`` rows and columns whatever the codebook and the run.

    Rows and columns are merged by their maximum: a code that lives is seen in its row.
    """

    def __init__(self) -> None:
        self._columns: list[NDArray[np.int64]] = []
        self._merge = 1  # records in a finished column
        self._open: list[NDArray[np.int64]] = []

    def add(self, hits: NDArray[np.int64]) -> None:
        """Take the (K,) hits of the next record."""
        edges = np.linspace(0, len(hits), min(len(hits), SIDE) + 1).astype(int)[:-1]
        self._open.append(np.maximum.reduceat(hits, edges))
        if len(self._open) == self._merge:
            self._columns.append(np.max(self._open, axis=0))
            self._open = []
        if len(self._columns) == SIDE:
            pairs = zip(self._columns[::2], self._columns[1::2], strict=True)
            self._columns = [np.maximum(*pair) for pair in pairs]
            self._merge *= 2

    def image(self) -> NDArray[np.uint8]:
        """(rows, columns, 3) colours, logarithmic in the hits; few columns are drawn wider."""
        columns = self._columns + ([np.max(self._open, axis=0)] if self._open else [])
        hits = np.stack(columns, axis=1).repeat(max(1, SIDE // len(columns)), axis=1)
        level = np.log1p(hits) / max(np.log1p(hits.max()), 1e-9) * (len(RAMP) - 1)
        colours = np.stack([np.interp(level, np.arange(len(RAMP)), RAMP[:, c]) for c in range(3)], axis=-1)
        return np.where(hits[..., None] > 0, colours, DEAD).astype(np.uint8)


def add_layout(writer: "SummaryWriter", codebook: str) -> None:
    """A custom-scalars page that puts the curves side by side that belong together."""
    prefix = f"codebook/{codebook}"
    writer.add_custom_scalars(
        {
            "Codebook": {
                "codes used (window), with the ceiling of a uniform codebook": [
                    "Multiline",
                    [f"{prefix}/codes_used_window$", f"{prefix}/codes_used_window_ceiling$"],
                ],
                "perplexity (window)": ["Multiline", [f"{prefix}/perplexity_window$"]],
                "resets (window)": ["Multiline", [f"{prefix}/resets_window$"]],
                "gradient and pull per code": ["Multiline", [f"{prefix}/grad_norm_mean$", f"{prefix}/pull_norm_mean$"]],
            },
            "Losses": {
                "reconstruction": ["Multiline", ["loss/l1$", "loss/l2$", "loss/perceptual$"]],
                "quantizer": ["Multiline", ["quantizer/.*"]],
                "adversary": ["Multiline", ["gan/.*"]],
            },
        }
    )


def add_projector(writer: "SummaryWriter", codebook: str, codes: "Tensor", hits: NDArray[np.int64], step: int) -> None:
    """The (K, D) codes in the projector, each with its hits and its norm."""
    norms = codes.norm(dim=1).tolist()
    metadata = [[code, int(count), f"{norm:.4g}"] for code, (count, norm) in enumerate(zip(hits, norms, strict=True))]
    writer.add_embedding(codes, metadata, tag=codebook, metadata_header=["code", "hits", "norm"], global_step=step)


def add_hparams(writer: "SummaryWriter", settings: dict[str, Any], metrics: Mapping[str, float], step: int) -> None:
    """Settings with final metrics, in the same run as everything else."""
    from torch.utils.tensorboard.summary import hparams

    plain = {
        key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in settings.items()
    }
    for summary in hparams(plain, dict(metrics)):
        writer._get_file_writer().add_summary(summary)
    for name, value in metrics.items():
        writer.add_scalar(name, value, step)
