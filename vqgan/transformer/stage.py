"""The second stage as a run sees it: codes of a frozen first stage, the learner, and the codes that are watched."""

from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from ...diagnostics import RunDirectory, Sink
from ...diagnostics.recording.token_board import TokenBoardSink
from ..data.batches import spread
from ..data.opening import open_images, tell
from ..sampling.completions import completions
from ..sampling.drawing import Choice, known_codes
from ..sampling.panels import save_png
from ..sampling.request import Request
from ..sampling.sample import draw_images
from ..sampling.settings import DrawingSettings
from ..training.logbook import Logbook, SampleGrid
from ..training.stage import Look, Losses, open_batches
from .conditions import open_condition
from .evaluation import evaluate_codes
from .learner import TransformerLearner
from .likelihood import likelihood
from .model import build_transformer
from .settings import TransformerConfig
from .split import CodeSplit
from .trained import Frozen, Trained, cache_of

#: Images that a look completes.
SHOWN = 8
#: As taming-transformers shows its samples.
LIKELIEST = DrawingSettings(top_k=100)


class TransformerStage:
    """See ``Stage``."""

    def __init__(self, fabric: Fabric, config: TransformerConfig, run: RunDirectory):
        self.fabric, self.config, self.run = fabric, config, run
        self.frozen = Frozen.of(config, run)
        for stage in self.frozen:
            if stage is not None:
                stage.to(fabric.device)
        cache = cache_of(config)
        with fabric.rank_zero_first():  # one rank decodes and encodes, the others find the cache
            images = open_images(config.data)
            if fabric.is_global_zero:
                tell(images)
            classes = images["train"].classes
            condition = open_condition(config, classes, self.frozen.grid, self.frozen.condition, cache)
            self.splits = {
                name: CodeSplit(self.frozen.first, part, condition, cache, flip=config.data.flip and name == "train")
                for name, part in images.items()
            }
        self.train_hits = self.splits["train"].hits(config.codebook_size)
        self.batches = open_batches(fabric, config, self.splits["train"])
        data = {"classes": list(classes), "train_hits": self.train_hits.tolist()}
        model = build_transformer(config, condition, self.frozen.grid)
        self.learner = TransformerLearner(fabric, config, model, data)

    def start(self) -> None:
        """Keep copies of the frozen stages: they are part of what samples."""
        if self.fabric.is_global_zero:
            self.frozen.save(self.run)

    def sinks(self, logbook: Logbook) -> list[Sink]:
        """The trace and TensorBoard."""
        return logbook.sinks(TokenBoardSink)

    def step(self, number: int) -> Losses:
        """One optimizer step."""
        return self.learner.step(number, self.batches)

    def status(self) -> str:
        """How many codes there are to learn."""
        return f"{np.count_nonzero(self.train_hits)} of {len(self.train_hits)} codes in the training data"

    def look(self, step: int) -> Look:
        """How well codes of the validation split are predicted, and images of it completed."""
        split, model = self.splits["validation"], self.learner.model
        rows = spread(min(self.config.train.validate_images, len(split)), len(split))
        figures = likelihood(model, split, rows, self._dead()).figures()
        values = {f"validation/{name}": value for name, value in figures.items()} | {"validation/images": len(rows)}
        panel = completions(self.frozen.first, model, split, spread(min(SHOWN, len(split)), len(split)), self._choice())
        return Look(values, figures["nll"], [SampleGrid("completions", "completions", to_tensor(panel))])

    def _dead(self) -> Tensor:
        return torch.from_numpy(np.flatnonzero(self.train_hits == 0)).to(self.fabric.device)

    def _choice(self) -> Choice:
        device = self.fabric.device
        generator = torch.Generator(device).manual_seed(self.config.sampling.seed)
        return Choice(known_codes(self.train_hits, device), LIKELIEST, generator)

    def finish(self, logbook: Logbook, step: int) -> dict[str, Any]:
        """The evaluation of the test split with its tables, and a panel of samples."""
        model, tokenizer, split = self.learner.model, self.frozen.first, self.splits["test"]
        found = evaluate_codes(model, tokenizer, split, self.train_hits, self.config.sampling, "test")
        if self.fabric.is_global_zero:
            found.write(self.run, "test")
            trained = Trained(
                self.config,
                step,
                self.frozen,
                split.condition,
                model,
                self.train_hits,
            )
            made = draw_images(trained, Request(drawing=LIKELIEST, split="test"))
            save_png(made, self.run.samples / f"samples-{step:07d}.png")
            logbook.on_board(lambda writer: writer.add_image("samples", to_tensor(made), step))
        return found.figures
