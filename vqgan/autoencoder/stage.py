"""The first stage as a run sees it: images, the learner, and the codebook that is watched."""

from typing import Any

from lightning_fabric import Fabric

from ...diagnostics import Sink, stats
from ...diagnostics.recording.codebook_board import TensorBoardSink, add_layout, add_projector
from ..data.opening import open_images, tell
from ..data.views import view_named
from ..training.logbook import Logbook, SampleGrid
from ..training.stage import Look, Losses, open_batches
from .evaluation import evaluate_split
from .learner import CODEBOOK, AutoencoderLearner
from .settings import AutoencoderConfig
from .validation import validate


class AutoencoderStage:
    """See ``Stage``."""

    def __init__(self, fabric: Fabric, config: AutoencoderConfig):
        self.config, self.view = config, view_named(config.data.view)
        with fabric.rank_zero_first():  # one rank decodes, the others find the cache
            images = open_images(config.data)
        self.images = {name: self.view.over(split) for name, split in images.items()}
        if fabric.is_global_zero:
            tell(self.images)
        self.batches = open_batches(fabric, config, self.images["train"])
        self.learner = AutoencoderLearner(fabric, config)
        self.learner.watch_reference(self.images["validation"])

    def start(self) -> None:
        """Put the first codes in their places."""
        self.learner.start_codebook(self.batches)

    def sinks(self, logbook: Logbook) -> list[Sink]:
        """The trace and TensorBoard."""
        logbook.on_board(lambda writer: add_layout(writer, CODEBOOK))
        return logbook.sinks(TensorBoardSink)

    def step(self, number: int) -> Losses:
        """One optimizer step."""
        return self.learner.step(number, self.batches)

    def status(self) -> str:
        """Codes used and perplexity in the last record, or in the window that is open where there is none yet."""
        hits = self.learner.monitor.last_hits(CODEBOOK)
        used = stats.usage(hits, "the last record")
        return f"codes {used.of_ceiling}, perplexity {used.perplexity:.1f} (last record, {used.tokens:,} tokens)"

    def look(self, step: int) -> Look:
        """Reconstructions of the validation split."""
        settings = self.config.train
        values, grid = validate(
            self.learner.model,
            self.view,
            self.learner.reconstruction,
            self.images["validation"],
            settings.validate_images,
            settings.batch_size,
        )
        picture = SampleGrid("reconstructions", "reconstructions: images above, reconstructions below", grid)
        return Look(values, values["validation/nll"], [picture])

    def finish(self, logbook: Logbook, step: int) -> dict[str, Any]:
        """The evaluation of the test split, and the codebook in the projector."""
        figures, hits = evaluate_split(self.learner.model, self.images["test"], self.config, "test")
        codes = self.learner.model.quantize.codebook.detach().cpu()
        logbook.on_board(lambda writer: add_projector(writer, CODEBOOK, codes, hits, step))
        return figures
