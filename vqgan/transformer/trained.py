"""A run of the second stage from its folder: whatever samples or evaluates begins here."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...diagnostics import RunDirectory
from ...diagnostics.errors import InputError
from ..config.layers import validated
from ..data import Images
from ..data.store import cache_folder
from ..training.checkpoint import load_checkpoint, load_weights
from ..training.settings import RunConfig
from .conditions import Condition, open_condition
from .model import CodeTransformer, build_transformer
from .settings import TransformerConfig
from .split import CodeSplit
from .tokenizer import Tokenizer


class Frozen(NamedTuple):
    """The finished stages that a second stage stands on; the run keeps copies, so that it needs no other folder."""

    first: Tokenizer
    condition: Tokenizer | None

    @classmethod
    def of(cls, config: TransformerConfig, run: RunDirectory) -> "Frozen":
        """The run's own copies, or, before there are any, the runs that the settings name.

        Raises:
            InputError: A run is missing or not finished, or its codebook or its images are of another size.
        """
        stage = config.condition.stage
        if run.first_stage_copy.is_file():
            condition = None if stage is None else Tokenizer.load(run.condition_stage_copy)
            frozen = cls(Tokenizer.load(run.first_stage_copy), condition)
        else:
            frozen = cls(Tokenizer.of_run(config.first_stage), None if stage is None else Tokenizer.of_run(stage))
        frozen._check(config)
        return frozen

    def _check(self, config: TransformerConfig) -> None:
        first = self.first
        if first.codebook_size != config.codebook_size:
            raise InputError(
                f"first stage {config.first_stage} has {first.codebook_size} codes, codebook_size is "
                f"{config.codebook_size}: leave that out, or choose another run"
            )
        if first.config.data.image_size != config.data.image_size:
            raise InputError(
                f"first stage {config.first_stage} is for images of {first.config.data.image_size} pixels, "
                f"data.image_size is {config.data.image_size}"
            )

    def save(self, run: RunDirectory) -> None:
        """The run's own copies."""
        if self.condition is not None:
            self.condition.save(run.condition_stage_copy)
        self.first.save(run.first_stage_copy)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the codes of an image."""
        side = self.first.config.data.image_size // self.first.factor
        return side, side


class Trained(NamedTuple):
    """A second stage that can sample.

    Attributes:
        config: The settings of its run.
        step: Optimizer steps of the checkpoint.
        frozen: The stages below it.
        condition: What stands before the codes.
        model: The transformer, in evaluation mode.
        train_hits: (K,) how often each code occurs in its training data.
    """

    config: TransformerConfig
    step: int
    frozen: Frozen
    condition: Condition
    model: CodeTransformer
    train_hits: NDArray[np.int64]

    @classmethod
    def load(cls, run: RunDirectory, checkpoint: str, device: str) -> "Trained":
        """A checkpoint of a run.

        Args:
            run: Its folder.
            checkpoint: ``last`` or ``best``.
            device: Where it is to compute.

        Raises:
            InputError: There is no such run or checkpoint, or it is of another model.
        """
        config = second_stage_config(run)
        path = run.checkpoint(checkpoint)
        state = load_checkpoint(path)
        data = state["learner"]["data"]
        frozen = Frozen.of(config, run)
        for stage in frozen:
            if stage is not None:
                stage.to(device)
        condition = open_condition(config, tuple(data["classes"]), frozen.grid, frozen.condition, cache_of(config))
        model = build_transformer(config, condition, frozen.grid)
        load_weights(model, state["learner"]["model"], path)
        model.to(device).eval()
        hits = np.array(data["train_hits"])
        return cls(config, state["step"], frozen, condition, model, hits)

    def split(self, images: Images) -> CodeSplit:
        """Codes and conditions of a split."""
        return CodeSplit(self.frozen.first, images, self.condition, cache_of(self.config))


def cache_of(config: RunConfig) -> Path:
    """Folder of the cache."""
    return config.data.cache or cache_folder()


def second_stage_config(run: RunDirectory) -> TransformerConfig:
    """The settings of a run of the second stage.

    Raises:
        InputError: The folder is no such run.
    """
    if run.stage != "transformer":
        line = f"{run.path} is a run of the first stage: train a transformer upon it, and give that one (first_stage)"
        raise InputError(line, "first_stage")
    # The config is whole: the folder of the first stage may be gone, or another now.
    return validated(TransformerConfig, run.read_config())
