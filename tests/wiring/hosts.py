"""Quantizers of other libraries as they are installed, each trained within a small autoencoder as its library says."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from strangers import AUDIO, LEVELLED, LUCIDRAINS, TABLES
from strangers.base import Stranger
from strangers.lucidrains import mask
from strangers.tables import table
from torch import Tensor, nn
from transformers.models.janus.configuration_janus import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAEVectorQuantizer
from vector_quantize_pytorch import LatentQuantize

from wiring.base import SetUp, adam

#: Channels of the data.
DATA = 12
#: A batch of a stranger is taken so many times.
TIMES = 16
_KEPT = functools.partial(mask, (7, 3) * TIMES)

#: Configurations that are not trained with their library, and why.
UNTRAINED = {
    "lucidrains random projection": "gives indices only, and is always in evaluation mode",
    "emu3": "gives indices only",
    "encodec encode": "gives indices only",
    "transformers encodec": "gives indices only",
    "transformers xcodec": "gives indices only",
    "transformers higgs": "gives indices only",
    "transformers mimi": "gives indices only",
    "transformers mimi split": "gives indices only",
}

_ALL: dict[str, Stranger] = {
    **{f"lucidrains {name}": each for name, each in LUCIDRAINS.items()},
    **LEVELLED,
    **TABLES,
    **AUDIO,
    # With the patches of the maps that it is given, so that its function from tokens to maps can be called:
    "janus": table(lambda: JanusVQVAEVectorQuantizer(JanusVQVAEConfig(num_embeddings=16, embed_dim=4, num_patches=3))),
    "latent quantize not projected": Stranger(lambda: LatentQuantize(levels=[5, 4, 3], dim=3), (2, 3, 10)),
}
#: Calls with a mask or with lengths of the whole batch.
_MASKED: dict[str, Callable[..., Any]] = {
    "lucidrains mask": lambda vq, x: vq(x, mask=_KEPT()),
    "lucidrains lens": lambda vq, x: vq(x, lens=torch.tensor((7, 3) * TIMES)),
    "lucidrains top k masked": lambda vq, x: vq(x, topk=3, mask=_KEPT()),
    "lucidrains residual beams masked": lambda vq, x: vq(x, mask=_KEPT()),
    "lucidrains residual masked": lambda vq, x: vq(x, mask=_KEPT()),
    "lfq mask": lambda vq, x: vq(x, mask=_KEPT()),
}
#: Axis of the channels, where it is neither the last one nor that of a library with the channels after the batch.
_FIRST = {
    *("lucidrains cosine images", "lucidrains channels first", "lucidrains hierarchical"),
    *(
        "lucidrains hierarchical separate",
        "fsq images",
        "latent quantize",
        "latent quantize not projected",
        "lfq images",
        "sim channels first",
    ),
    *("diffusers fsq", *TABLES, *(name for name in AUDIO if name.startswith("encodec"))),
}


def _returned(output: Any) -> Tensor:
    """The sum of the losses of all layers; the mean of those of each token."""
    later = output[1:3] if isinstance(output, tuple) else (output.commitment_loss,)
    found = [leaf for leaf in later if isinstance(leaf, Tensor) and leaf.requires_grad]
    return sum((leaf.mean() if leaf.ndim > 2 else leaf.sum() for leaf in found), torch.zeros(()))


def _dac(output: Any) -> Tensor:
    """The weights of ``DacConfig``: 0.25 and 1."""
    return 0.25 * output[1] + output[2]


def _residual_dac(output: Any) -> Tensor:
    """The same, of the mean over samples: layers that are dropped for a sample count as zero."""
    return 0.25 * output[3].mean() + output[4].mean()


def _diversity(output: Any) -> Tensor:
    """As in ``Wav2Vec2ForPreTraining``: the share of the 32 codes that perplexity misses, by 0.1."""
    return 0.1 * (32 - output[1]) / 32


def _losses(name: str) -> Callable[[Any], Tensor]:
    if name in ("dac", "residual dac"):
        return _dac if name == "dac" else _residual_dac
    return _diversity if name.startswith(("wav2vec2", "wavlm", "unispeech")) else _returned


class Autoencoder(nn.Module):
    """A learned map to the quantizer's channels, the quantizer, and one from what it hands on to the data.

    Gives the reconstruction and the quantizer's losses.
    """

    def __init__(self, name: str, stranger: Stranger):
        super().__init__()
        self.axis = 1 if name in _FIRST else len(stranger.shape) - 1
        channels = stranger.shape[self.axis]
        self.encoder = nn.Linear(DATA, channels)
        self.vq = stranger.build()
        self.decoder = nn.Linear(8 if _losses(name) is _diversity else channels, DATA)
        self._call, self._losses = _MASKED.get(name) or stranger.call or nn.Module.__call__, _losses(name)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output = self._call(self.vq, self.encoder(x.movedim(self.axis, -1)).movedim(-1, self.axis))
        quantized = output[0] if isinstance(output, tuple) else output.quantized
        if quantized.ndim > x.ndim:  # several codes a token, each with the channels last
            return self.decoder(quantized), self._losses(output)
        return self.decoder(quantized.movedim(self.axis, -1)).movedim(-1, self.axis), self._losses(output)


class Model(nn.Module):
    """A whole autoencoder of a library."""

    def __init__(self, name: str, stranger: Stranger):
        super().__init__()
        self.vq = stranger.build()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output = self.vq(x)
        return output.sample, output.commit_loss


def mixture(shape: tuple[int, ...], axis: int) -> Tensor:
    """Vectors about 24 centres, with the channels on ``axis``."""
    gen = torch.Generator().manual_seed(1)
    centres = torch.randn(24, shape[axis], generator=gen)
    places = [size for at, size in enumerate(shape) if at != axis]
    vectors = centres[torch.randint(24, places, generator=gen)]
    return (vectors + 0.3 * torch.randn(vectors.shape, generator=gen)).movedim(-1, axis).contiguous()


def rebuilding(model: nn.Module, batch: Tensor) -> Tensor:
    """Reconstruction and what the library returns to be minimised. Several codes of a token are decoded each."""
    recon, losses = model(batch)
    return F.mse_loss(recon, batch.unsqueeze(-2).expand_as(recon) if recon.ndim > batch.ndim else batch) + losses


def _made(name: str) -> SetUp:
    stranger = _ALL[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (Model if name == "diffusers model" else Autoencoder)(name, stranger).train()
    shape = [TIMES * stranger.shape[0], *stranger.shape[1:]]
    axis = getattr(model, "axis", 1)
    shape[axis] = DATA if isinstance(model, Autoencoder) else shape[axis]
    return SetUp(model, mixture(tuple(shape), axis), rebuilding, adam(model))


#: Everything of other libraries that is read and trained, by name.
HOSTED: dict[str, Callable[[], SetUp]] = {
    name: functools.partial(_made, name)
    for name, stranger in _ALL.items()
    if stranger.refused is None and name not in UNTRAINED
}
