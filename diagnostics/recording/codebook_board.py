"""Records as TensorBoard sees them: scalars, histograms, the collapse heatmap, the codebook in the projector."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..run import RunDirectory
from .board import BoardSink
from .heatmap import Heatmap
from .records import CodebookRecord
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

    def _write_details(self, record: CodebookRecord) -> None:
        prefix = f"codebook/{record.codebook}"
        for name in ("norm", "grad_norm", "pull_norm"):
            if len(values := finite(getattr(record, name))):
                self.writer.add_histogram(f"{prefix}/{name}", values, record.step)
        self.writer.add_histogram(f"{prefix}/log10(hits + 1)", np.log10(record.hits + 1), record.step)
        picture = self._heatmaps[record.codebook].image()
        self.writer.add_image(f"{prefix}/{HEATMAP}", picture, record.step, dataformats="HWC")


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
