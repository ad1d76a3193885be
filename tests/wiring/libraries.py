"""Quantizers as they are installed: faults that today's releases have, and set-ups of theirs without one."""

from collections.abc import Callable

import torch
from diffusers.pipelines.ace_step.modeling_ace_step import _AceStepResidualFSQ
from encodec.quantization.core_vq import ResidualVectorQuantization
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ, SimVQ, VectorQuantize

from vqtool.vqgan.quantizers import QUANTIZERS
from wiring.base import SPREAD, Bug, Codec, D, K, SetUp, autoencoding, set_up, waves, with_images
from wiring.symptoms import averages_apart, deaf_commitment, decoder_cut_off, lossy_round_trip, revival_lost

INNER = "quantizer.layers.0._codebook"


class ChannelsLast(nn.Module):
    """Hands (B, D, T) to a quantizer of (B, T, D), and makes its output (q, indices, losses)."""

    def __init__(self, vq: nn.Module):
        super().__init__()
        self.vq = vq

    def forward(self, x):
        q, indices, *losses = self.vq(x.transpose(1, 2))
        return q.transpose(1, 2), indices, losses[0] if losses else x.new_zeros(())


class Own(nn.Module):
    """A quantizer of this package, its output in the form of the others."""

    def __init__(self, name: str, dim: int = D, **settings):
        super().__init__()
        self.vq = QUANTIZERS[name](K, dim, **settings)
        self.vq.overwrite(torch.arange(K), SPREAD * torch.randn(K, dim))

    def forward(self, latents):
        output = self.vq(latents)
        return output.quantized, output.loss, (None, None, output.indices)


def ending_steps(model: nn.Module, batch: Tensor) -> Tensor:
    """The loss, after the quantizer was told that the step before has ended."""
    model.quantize.vq.end_step()
    return autoencoding(model, batch)


def own(name: str, **settings) -> Callable[[], SetUp]:
    return with_images(lambda: Own(name, **settings), loss=ending_steps)


def last(vq: Callable[[], nn.Module], dim: int = D) -> Callable[[], SetUp]:
    return set_up(lambda: Codec(ChannelsLast(vq()), dim), waves)


def encodec(**settings) -> Callable[[], SetUp]:
    settings = {"num_quantizers": 2, "dim": D, "codebook_size": K, "decay": 0.9, "kmeans_init": False, **settings}
    return set_up(lambda: Codec(ResidualVectorQuantization(**settings)), waves)


#: What all residual quantizers of that library have.
ENCODEC = ("residual-commitment", "reset", "moving-averages")

LIBRARY_BUGS = {
    "encodec residual": Bug(
        encodec(),
        ("residual-commitment",),
        "quantizer.layers.1",
        "encodec 0.1.1; facebookresearch/encodec#25",
        deaf_commitment(1),
        "residual",
        ENCODEC,
    ),
    "encodec expiry": Bug(
        encodec(),
        ("reset",),
        "quantizer.layers.0",
        "encodec 0.1.1; facebookresearch/encodec#61",
        revival_lost(INNER),
        "residual",
        ENCODEC,
    ),
    "encodec counts": Bug(
        encodec(threshold_ema_dead_code=0),
        ("moving-averages",),
        "quantizer.layers.0",
        "encodec 0.1.1 with kmeans_init=False",
        averages_apart(f"{INNER}.embed", f"{INNER}.embed_avg", f"{INNER}.cluster_size"),
        "residual",
        ENCODEC,
    ),
    "ace-step": Bug(
        last(lambda: _AceStepResidualFSQ(dim=D, levels=[5, 5, 5], num_quantizers=2)),
        ("straight-through",),
        "quantizer.vq",
        "diffusers 0.42 ACE-Step tokenizer, trained",
        decoder_cut_off,
        "lucidrains FSQ",
    ),
    "affine entries": Bug(
        last(lambda: VectorQuantize(D, K, affine_param=True, decay=0.9)),
        ("round-trip",),
        "quantizer.vq",
        "vector_quantize_pytorch 1.32 affine_param",
        lossy_round_trip("quantizer.vq", lambda vq, indices: vq.get_codes_from_indices(indices[None])[0], 3),
        "lucidrains",
        ("train-eval",),
    ),
}

LIBRARY_CLEAN = {
    "standard": own("standard"),
    "ema": own("ema"),
    "gumbel": own("gumbel"),
    "entropy": own("entropy"),
    "lucidrains": last(lambda: VectorQuantize(D, K, kmeans_init=True, threshold_ema_dead_code=1)),
    "lucidrains learnable": last(lambda: VectorQuantize(D, K, learnable_codebook=True, ema_update=False)),
    "lucidrains cosine": last(lambda: VectorQuantize(D, K, use_cosine_sim=True)),
    "lucidrains ResidualVQ": last(lambda: ResidualVQ(dim=D, num_quantizers=3, codebook_size=K)),
    "lucidrains FSQ": last(lambda: FSQ([5] * D)),
    "lucidrains LFQ": last(lambda: LFQ(codebook_size=2**D, dim=D)),
    "lucidrains SimVQ": last(lambda: SimVQ(dim=D, codebook_size=K)),
}
