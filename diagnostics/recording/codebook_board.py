"""Records as TensorBoard sees them: scalars, histograms, the collapse heatmap, the codebook in the projector."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..run import RunDirectory
from .board import BoardSink
from .heatmap import Heatmap
from .records import CodebookRecord
from .rows import Row
from .scalars import finite
from .trace import hits_in_time

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

#: Under ``codebook/NAME``. TensorBoard shows the step of a picture beside it.
HEATMAP = "hits: code x time, codes sorted by last hit, white = none, up to the step shown"


class TensorBoardSink(BoardSink[CodebookRecord]):
    """Writes the records of codebooks to TensorBoard; see ``BoardSink``."""

    def __init__(self, writer: "SummaryWriter", detail_every: int = 10):
        super().__init__(writer, detail_every)
        self._heatmaps: dict[str, Heatmap] = {}
        self._names: dict[str, str] = {}  # by tag, the last name that was written, such as that of the estimator

    def recall(self, run: RunDirectory) -> None:
        """Take in the hits of the records in the run's trace: the heatmap of a resumed run shows all of it."""
        for folder in run.codebooks():
            for hits in hits_in_time(folder):
                self._add(folder.name, hits)
                self._since[folder.name] = 0

    def _add(self, codebook: str, hits: NDArray[np.int64]) -> None:
        self._heatmaps.setdefault(codebook, Heatmap(len(hits))).add(hits)

    def write(self, record: CodebookRecord) -> None:
        self._add(record.codebook, record.hits)
        super().write(record)

    def write_row(self, row: Row) -> None:
        """Every number of a row, such as ``boundary/quantize/ratio``, and what it names where that has changed."""
        for tag, value in row.scalars().items():
            self.writer.add_scalar(tag, value, row.step)
        for name in row.columns():
            tag, value = f"{row.place}/{name}", getattr(row, name)
            if isinstance(value, str) and self._names.get(tag) != value:
                self.writer.add_text(tag, value, row.step)
                self._names[tag] = value

    def _write_details(self, record: CodebookRecord) -> None:
        prefix = f"codebook/{record.codebook}"
        for name in ("norm", "grad_norm", "pull_norm"):
            if len(values := finite(getattr(record, name))):
                self.writer.add_histogram(f"{prefix}/{name}", values, record.step)
        self.writer.add_histogram(f"{prefix}/log10(hits + 1)", np.log10(record.hits + 1), record.step)
        picture = self._heatmaps[record.codebook].image()
        self.writer.add_image(f"{prefix}/{HEATMAP}", picture, record.step, dataformats="HWC")


#: What stands together on the page of custom scalars, by category and chart: a table, and its columns in one chart.
CHARTS: dict[str, dict[str, tuple[str, list[str]]]] = {
    "Codebook": {
        "codes used (window), with the ceiling of a uniform codebook": (
            "codebook",
            ["codes_used_window", "codes_used_window_ceiling"],
        ),
        "perplexity (window), and corrected for few tokens": (
            "codebook",
            ["perplexity_window", "perplexity_window_corrected"],
        ),
        "coverage (window): share of use on codes that were seen": ("codebook", ["coverage_window"]),
        "resets (window)": ("codebook", ["resets_window"]),
        "gradient and pull per code": ("codebook", ["grad_norm_mean", "pull_norm_mean"]),
    },
    "Boundary": {
        "gradients: from the decoder, to the encoder, commitment": (
            "boundary",
            ["decoder_grad_norm", "encoder_grad_norm", "commitment_grad_norm"],
        ),
        "ratio and cosine of the two": ("boundary", ["ratio", "cosine"]),
        "R2 of the estimators": ("boundary", ["straight_through_r2", "cosine_r2", "rotation_r2"]),
        "measured weight of the commitment, and what arrives of the decoder's gradient": (
            "boundary",
            ["commitment", "gain"],
        ),
    },
    "Movement": {
        "distance of a step": ("movement", ["moved_mean", "moved_median_used", "moved_max"]),
        "attraction to the latents, and its R2": ("movement", ["attraction", "attraction_r2"]),
        "share of codes that moved, that have a gradient": ("movement", ["moved_share", "grad_share"]),
        "velocity of codes, and of the centroids of their latents": (
            "movement",
            ["code_velocity", "centroid_velocity"],
        ),
        "learning rate": ("movement", ["lr"]),
    },
    "Latents and geometry": {
        "norm, spread and centre of the latents": ("latents", ["mean_norm", "spread", "centre_norm"]),
        "the reference batch: churn and drift": ("latents", ["churn", "encoder_drift"]),
        "scale and spread of the codes, over the latents'": ("geometry", ["scale", "spread_ratio"]),
        "effective rank of latents and used codes": ("geometry", ["effective_rank", "effective_rank_used"]),
        "offset, reach of unhit codes": ("geometry", ["offset", "dead_reach"]),
        "quantization error, and its share of lag": ("geometry", ["quantization_error", "bias_share"]),
    },
}
#: The same for what is not of a codebook, with the tags themselves.
LOSSES = {
    "reconstruction": ["loss/l1$", "loss/l2$", "loss/perceptual$"],
    "quantizer": ["quantizer/.*"],
    "adversary": ["gan/.*"],
}


def add_layout(writer: "SummaryWriter", codebook: str) -> None:
    """A custom-scalars page that puts the curves side by side that belong together."""
    layout = {
        category: {
            title: ["Multiline", [f"{table}/{codebook}/{name}$" for name in names]]
            for title, (table, names) in charts.items()
        }
        for category, charts in CHARTS.items()
    }
    writer.add_custom_scalars(layout | {"Losses": {title: ["Multiline", tags] for title, tags in LOSSES.items()}})


def add_projector(writer: "SummaryWriter", codebook: str, codes: "Tensor", hits: NDArray[np.int64], step: int) -> None:
    """The (K, D) codes in the projector, each with its hits and its norm."""
    norms = codes.norm(dim=1).tolist()
    metadata = [[code, int(count), f"{norm:.4g}"] for code, (count, norm) in enumerate(zip(hits, norms, strict=True))]
    writer.add_embedding(codes, metadata, tag=codebook, metadata_header=["code", "hits", "norm"], global_step=step)
