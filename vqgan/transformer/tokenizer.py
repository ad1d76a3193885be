"""A frozen first stage: from images to codes and back."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...diagnostics import RunDirectory
from ...diagnostics.errors import InputError
from ..autoencoder.model import VQModel, build_model
from ..autoencoder.settings import AutoencoderConfig, autoencoder_config_of, build_autoencoder_config
from ..data import Images
from ..data.views import view_named
from ..training.checkpoint import load_checkpoint, load_weights, save_checkpoint


class Tokenizer:
    """The autoencoder of a finished run, in evaluation mode; nothing updates it.

    Attributes:
        config: The settings of its run.
        view: What it sees of an image: the photograph itself, or a condition such as its edges.
        fingerprint: Digest of settings and weights: equal ones give equal codes.
    """

    def __init__(self, config: AutoencoderConfig, weights: dict[str, Tensor], source: Path):
        self.config = config
        self.view = view_named(config.data.view)
        self.model: VQModel = build_model(config)
        load_weights(self.model, weights, source)
        self.model.eval().requires_grad_(False)
        self.fingerprint = _fingerprint(config, self.model.state_dict())

    @classmethod
    def of_run(cls, path: Path) -> "Tokenizer":
        """The last checkpoint of a finished first stage.

        Raises:
            InputError: There is no such run, it is not finished, or it is not of the first stage.
        """
        run = RunDirectory(path)
        config = autoencoder_config_of(run)
        if not run.is_finished:
            raise InputError(f"first stage {path} is not finished: it has to be trained to its end (resume)", "resume")
        file = run.last_checkpoint
        return cls(config, load_checkpoint(file)["learner"]["model"], file)

    @classmethod
    def load(cls, file: Path) -> "Tokenizer":
        """What ``save`` wrote."""
        state = load_checkpoint(file)
        return cls(build_autoencoder_config(state["config"]), state["model"], file)

    def save(self, file: Path) -> None:
        """Settings and weights as one file."""
        save_checkpoint(file, {"config": self.config.model_dump(mode="json"), "model": self.model.state_dict()})

    def to(self, device: torch.device | str) -> "Tokenizer":
        """The same on ``device``."""
        self.model.to(device)
        return self

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.config.quantizer.codebook_size

    @property
    def factor(self) -> int:
        """Pixels per code along one side."""
        return 2 ** (len(self.config.model.ch_mult) - 1)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.quant_conv.weight.device

    def sees(self, images: Images) -> Images:
        """The same images as its view looks at them."""
        return self.view.over(images)

    @torch.no_grad()
    def encode(self, crops: Tensor) -> Tensor:
        """(B, planes, S, S) uint8 -> codes (B, S / f, S / f) int64, in float32 whatever the autocast."""
        with torch.autocast(self.device.type, enabled=False):
            return self.model.encode(self.view.load(crops, self.device)).indices

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """(B, h, w) codes -> images to look at (B, 3, f h, f w) in [-1, 1]."""
        return self.view.picture(self.model.decode(self.model.quantize.lookup(codes)))

    def picture(self, crops: Tensor) -> Tensor:
        """(B, planes, S, S) uint8 -> what the view shows of them, (B, 3, S, S) in [-1, 1]."""
        return self.view.picture(self.view.load(crops, self.device))


def _fingerprint(config: AutoencoderConfig, weights: dict[str, Any]) -> str:
    summary = hashlib.blake2b(repr((config.data.view, config.model, config.quantizer)).encode(), digest_size=16)
    for name, tensor in sorted(weights.items()):
        summary.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return summary.hexdigest()
