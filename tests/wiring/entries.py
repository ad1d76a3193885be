"""Faults between the indices and what the decoder gets: entries, caches, lengths."""

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.janus.configuration_janus import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAEVectorQuantizer

from wiring.base import SPREAD, Bug, Codec, D, K, closest, maps, set_up, through, tokens, waves, with_images, with_waves
from wiring.moving import EuclideanCodebook, VectorQuantization
from wiring.symptoms import lengths_matter_to_the_loss_alone, lossy_round_trip, train_unlike_eval


def by_entry(quantizer: nn.Module, indices: Tensor) -> Tensor:
    """What the quantizer's own ``get_codebook_entry`` gives, (N, D)."""
    return quantizer.get_codebook_entry(indices).reshape(-1, D)


class Janus(JanusVQVAEVectorQuantizer):
    """Of transformers, its output in the form of the others. Its entries have length one, its forward's do not."""

    def __init__(self):
        super().__init__(JanusVQVAEConfig(num_embeddings=K, embed_dim=D, num_patches=8))
        self.beta = 0.25
        nn.init.normal_(self.embedding.weight, std=SPREAD)

    def forward(self, hidden_state):
        q, loss, indices = super().forward(hidden_state)
        return q, loss, (None, None, indices)

    def get_codebook_entry(self, image_tokens):
        return tokens(super().get_codebook_entry(image_tokens.view(-1, 64)))


class JanusRaw(Janus):
    """Both terms weigh the same, so that beta stands on no wrong side."""

    def __init__(self):
        super().__init__()
        self.beta = 1.0

    def get_codebook_entry(self, image_tokens):
        return self.embedding(image_tokens)


class SimVQ(nn.Module):
    """Frozen random codes behind a layer that learns."""

    def __init__(self):
        super().__init__()
        self.n_e, self.e_dim, self.beta = K, D, 0.25
        self.embedding = nn.Embedding(K, D)
        nn.init.normal_(self.embedding.weight, std=D**-0.5)
        self.embedding.weight.requires_grad_(False)
        self.embedding_proj = nn.Linear(D, D)

    def forward(self, z):
        flat, table = tokens(z), self.embedding_proj(self.embedding.weight)
        ids = closest(flat, table)
        q = table[ids]
        loss = F.mse_loss(q, flat.detach()) + self.beta * F.mse_loss(q.detach(), flat)
        return maps(through(flat, q), z), loss, (None, None, ids)

    def get_codebook_entry(self, indices):
        return self.embedding_proj(self.embedding(indices))


class Unprojected(SimVQ):
    """Entries come from the frozen codes themselves."""

    def get_codebook_entry(self, indices):
        return self.embedding(indices)


class Cached(EuclideanCodebook):
    """Codes are sums over counts; for speed, eval mode keeps the quotient of its first call."""

    def __init__(self):
        super().__init__(kmeans_init=False)
        self._frozen = None

    def forward(self, x):
        if self.training:
            self.forget()
            return super().forward(x)
        if self._frozen is None:
            self._frozen = self.embed.clone()
        ids = closest(x.reshape(-1, x.shape[-1]), self._frozen)
        return F.embedding(ids, self._frozen).view(x.shape), ids.view(x.shape[:-1])

    def forget(self) -> None:
        self._frozen = None


class Stale(Cached):
    """Nobody clears what eval mode has kept when the codes move."""

    def forget(self):
        pass


def validated_before(codebook: type[Cached]):
    """A codec that was validated once before training, as trainers do to see that validation works."""

    def build() -> Codec:
        model = Codec(VectorQuantization(codebook()))
        model.eval()(waves())
        return model

    return set_up(build, waves)


class Descript(nn.Module):
    """A codebook between two projections, as in the Descript audio codec; everything in it has length one."""

    def __init__(self):
        super().__init__()
        self.codebook_size, self.codebook_dim = K, 3
        self.in_proj = nn.Conv1d(D, 3, 1, bias=False)
        self.out_proj = nn.Conv1d(3, D, 1)
        self.codebook = nn.Embedding(K, 3)

    def forward(self, z):
        z_e = self.compared(self.in_proj(z), 1)
        flat, table = tokens(z_e), self.compared(self.codebook.weight, 1)
        ids = closest(F.normalize(flat), F.normalize(table))
        q = maps(F.embedding(ids, table), z_e)
        losses = 0.25 * F.mse_loss(z_e, q.detach()) + F.mse_loss(q, z_e.detach())
        return self.out_proj(through(z_e, q)), ids.view(len(z), -1), losses

    def compared(self, vectors: Tensor, axis: int) -> Tensor:
        return F.normalize(vectors, dim=axis)


class RawLosses(Descript):
    """Assigned by direction; losses and output are of vectors of any length."""

    def compared(self, vectors, axis):
        return vectors


def entry_of(quantize, source, twin, *allowed) -> Bug:
    symptom = lossy_round_trip("quantize", by_entry)
    return Bug(with_images(quantize), ("round-trip",), "quantize", source, symptom, twin, allowed)


ENTRY_BUGS = {
    "entries of length one": entry_of(
        Janus, "transformers JanusVQVAEVectorQuantizer", "raw entries", "commitment-side"
    ),
    "entries unprojected": entry_of(Unprojected, "youngsheen/SimVQ get_codebook_entry", "simvq"),
    "stale cache": Bug(
        validated_before(Stale),
        ("train-eval",),
        "quantizer._codebook",
        "transformers MimiEuclideanCodebook.embed, cached before the sums move",
        train_unlike_eval("quantizer._codebook"),
        "cache",
        ("round-trip",),
    ),
    "cosine with raw losses": Bug(
        with_waves(RawLosses),
        ("cosine-lengths",),
        "quantizer",
        "descriptinc/descript-audio-codec#111",
        lengths_matter_to_the_loss_alone("quantizer", "quantizer.codebook.weight"),
        "cosine",
    ),
}

ENTRY_CLEAN = {
    "raw entries": with_images(JanusRaw),
    "simvq": with_images(SimVQ),
    "cache": validated_before(Cached),
    "cosine": with_waves(Descript),
}
