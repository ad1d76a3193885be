"""Quantizers that live in repositories, not in packages: stand-ins written for these tests, with the attributes, the
arguments and the outputs of the originals, and no more of their arithmetic than decides how they are read.

Compared once with: CompVis/taming-transformers 049bd91 (``quantize.py``; latent-diffusion imports these classes),
FoundationVision/LlamaGen 3786e6a (``vq_model.py``), lyndonzheng/CVQ-VAE 04864b7 (``quantise.py``),
SerezD/vqvae-vqgan-pytorch-lightning 0f3f3b1 (``vector_quantizers.py``), openai/jukebox 711a575 (``bottleneck.py``),
descriptinc/descript-audio-codec 3e877db (``quantize.py``), kyutai-labs/moshi 0074925 (``core_vq.py``). Of SimVQ and IBQ
copies in other repositories were at hand, not the originals.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from wiring.base import closest, through, tokens
from wiring.base import maps as images

from strangers.base import Seen, Stranger, Tokens, flat, on_return
from strangers.tables import D, K, nearest, spy_table, unit


class Taming(nn.Module):
    def __init__(self, legacy=True, remap=None, sane_index_shape=False):
        super().__init__()
        self.n_e, self.e_dim, self.beta, self.legacy, self.remap = K, D, 0.25, legacy, remap
        self.sane_index_shape = sane_index_shape
        self.embedding = nn.Embedding(K, D)
        nn.init.normal_(self.embedding.weight)
        if remap:
            self.register_buffer("used", torch.arange(0, K, 2))

    def forward(self, z, temp=None, rescale_logits=False, return_logits=False):
        ids = closest(tokens(z), self.embedding.weight)
        q = self.embedding(ids)
        commit, follow = F.mse_loss(q.detach(), tokens(z)), F.mse_loss(q, tokens(z).detach())
        loss = commit + self.beta * follow if self.legacy else self.beta * commit + follow
        if self.remap:
            match = ids[:, None] == self.used
            ids = torch.where(match.any(1), match.long().argmax(1), torch.randint(0, K // 2, ids.shape))[:, None]
        if self.sane_index_shape:
            ids = ids.reshape(z.shape[0], *z.shape[2:])
        return images(through(tokens(z), q), z), loss, (None, None, ids)


class TamingFirst(Taming):
    def forward(self, z):
        q, loss, (_, _, ids) = super().forward(z)
        one_hot = F.one_hot(ids, K).float()
        return q, loss, (one_hot.mean(0), one_hot, ids[:, None])


class TamingGumbel(nn.Module):
    def __init__(self, straight_through=True, remap=None):
        super().__init__()
        self.straight_through, self.temperature, self.kl_weight, self.remap = straight_through, 1.0, 5e-4, remap
        self.proj = nn.Conv2d(6, K, 1)
        self.embed = nn.Embedding(K, D)
        if remap:
            self.register_buffer("used", torch.arange(0, K, 2))

    def forward(self, z, temp=None, return_logits=False):
        logits = self.proj(z)
        one_hot = F.gumbel_softmax(
            logits[:, self.used] if self.remap else logits, 1.0, hard=self.straight_through, dim=1
        )
        table = self.embed.weight[self.used] if self.remap else self.embed.weight
        q = torch.einsum("bnhw,nd->bdhw", one_hot, table)
        return q, logits.square().mean(), (None, None, one_hot.argmax(1))


class LlamaGen(nn.Module):
    def __init__(self, l2_norm=True):
        super().__init__()
        self.beta, self.l2_norm, self.show_usage = 0.25, l2_norm, True
        self.embedding = nn.Embedding(K, D)
        if l2_norm:
            self.embedding.weight.data = unit(self.embedding.weight.data)
        self.register_buffer("codebook_used", torch.zeros(64))

    def forward(self, z):
        flat_z = F.normalize(tokens(z), dim=-1) if self.l2_norm else tokens(z)
        table = F.normalize(self.embedding.weight, dim=-1) if self.l2_norm else self.embedding.weight
        ids = closest(flat_z, table)
        q, losses = table[ids], (None, None, None, 0)
        if self.training:
            losses = (F.mse_loss(q, flat_z.detach()), self.beta * F.mse_loss(q.detach(), flat_z), flat_z.mean(), 0.5)
        return images(through(flat_z, q), z), losses, (None, None, ids)


class SimVQ(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta, self.remap, self.sane_index_shape = 0.25, None, False
        self.embedding = nn.Embedding(K, D)
        self.embedding.weight.requires_grad_(False)
        self.embedding_proj = nn.Linear(D, D)

    def forward(self, z, temp=None):
        table = self.embedding_proj(self.embedding.weight)
        ids = closest(tokens(z), table)
        q = table[ids]
        commit = self.beta * F.mse_loss(q.detach(), tokens(z)) + F.mse_loss(q, tokens(z).detach())
        return (images(through(tokens(z), q), z), torch.tensor(0.0), ids), commit


class CVQ(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta, self.anchor = 0.25, "random"
        self.embedding = nn.Embedding(K, D)
        self.register_buffer("embed_prob", torch.zeros(K))

    def forward(self, z):
        cosine = F.normalize(tokens(z), dim=1) @ F.normalize(self.embedding.weight, dim=1).T
        ids = cosine.argmax(1)
        one_hot = F.one_hot(ids, K).float()
        q = one_hot @ self.embedding.weight
        loss = self.beta * F.mse_loss(q.detach(), tokens(z)) + F.mse_loss(q, tokens(z).detach())
        if self.training:
            decay = torch.exp(-self.embed_prob.mul_(0.99).add_(0.01 * one_hot.mean(0)) * K)[:, None]
            self.embedding.weight.data = self.embedding.weight.data * (1 - decay) + tokens(z).detach()[:K] * decay
        return images(through(tokens(z), q), z), loss, (torch.tensor(1.0), one_hot, ids)


class IBQ(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta, self.use_entropy_loss = 0.25, True
        self.embedding = nn.Embedding(K, D)

    def forward(self, z, temp=None, return_logits=False):
        soft = torch.einsum("bdhw,nd->bnhw", z, self.embedding.weight).softmax(1)
        ids = soft.argmax(1, keepdim=True)
        one_hot = torch.zeros_like(soft).scatter_(1, ids, 1.0) - soft.detach() + soft
        q = torch.einsum("bnhw,nd->bdhw", one_hot, self.embedding.weight)
        parts = tuple(F.mse_loss(q, z) for _ in range(3))
        return q, (sum(parts), *parts), (None, None, ids.flatten())


class SerezD(nn.Module):
    def __init__(self):
        super().__init__()
        self.commitment_cost = 0.25
        self.codebook = nn.Embedding(K, D)

    def forward(self, x):
        ids = closest(tokens(x), self.codebook.weight)
        q = self.codebook(ids)
        loss = F.mse_loss(q, tokens(x))
        return images(through(tokens(x), q), x), ids.reshape(len(x), -1), loss


class SerezDMoving(SerezD):
    def __init__(self):
        super().__init__()
        self.codebook.requires_grad_(False)
        self.register_buffer("ema_count", torch.zeros(K))
        self.register_buffer("ema_weight", torch.randn(K, D))

    def forward(self, x):
        out = super().forward(x)
        if self.training:
            one_hot = F.one_hot(out[1].flatten(), K).float()
            self.ema_count = self.ema_count * 0.95 + 0.05 * one_hot.sum(0) + 1e-5
            self.ema_weight = self.ema_weight * 0.95 + 0.05 * one_hot.T @ tokens(x).detach()
            self.codebook.weight.data = self.ema_weight / self.ema_count[:, None]
        return out


class SerezDGumbel(SerezD):
    def __init__(self):
        super().__init__()
        self.temp, self.kl_cost = 1.0, 5e-4

    def forward(self, x):
        one_hot = F.gumbel_softmax(x, 1.0, hard=True, dim=1)
        q = torch.einsum("bnhw,nd->bdhw", one_hot, self.codebook.weight)
        return q, one_hot.argmax(1).flatten(1), x.softmax(1).mean()


class Jukebox(nn.Module):
    def __init__(self):
        super().__init__()
        self.k_bins, self.emb_width, self.init, self.k_sum, self.k_elem = K, D, False, None, None
        self.register_buffer("k", torch.zeros(K, D))

    def forward(self, x, update_k=True):
        z = tokens(x)
        if update_k and not self.init:
            self.init, self.k = True, z.detach()[torch.randperm(len(z))][:K]
            self.k_sum, self.k_elem = self.k, torch.ones(K)
        ids = closest(z, self.k)
        q = F.embedding(ids, self.k)
        if update_k:
            one_hot = F.one_hot(ids, K).float()
            self.k_sum = 0.9 * self.k_sum + 0.1 * one_hot.T @ z.detach()
            self.k_elem = 0.9 * self.k_elem + 0.1 * one_hot.sum(0)
            self.k = self.k_sum / self.k_elem[:, None]
        return ids.reshape(len(x), -1), images(through(z, q), x), (q.detach() - z).square().mean(), {"fit": z.mean()}


class Descript(nn.Module):
    def __init__(self):
        super().__init__()
        self.codebook_size, self.codebook_dim = K, D
        self.in_proj = nn.utils.parametrizations.weight_norm(nn.Conv1d(8, D, 1))
        self.out_proj = nn.utils.parametrizations.weight_norm(nn.Conv1d(D, 8, 1))
        self.codebook = nn.Embedding(K, D)

    def forward(self, z):
        z = self.in_proj(z)
        ids = closest(F.normalize(tokens(z)), F.normalize(self.codebook.weight))
        q = images(self.codebook(ids), z)
        commitment, codebook = ((a - b).square().mean([1, 2]) for a, b in ((z, q.detach()), (q, z.detach())))
        return self.out_proj(through(z, q)), commitment, codebook, ids.reshape(len(z), -1), z


class MoshiResult(NamedTuple):
    quantized: Tensor
    codes: Tensor
    metrics: dict


class MoshiCodebook(nn.Module):
    def __init__(self):
        super().__init__()
        self.epsilon = 1e-5
        self.register_buffer("_initialized", torch.ones(1))
        self.register_buffer("cluster_usage", torch.rand(K) + 0.5)
        self.register_buffer("embedding_sum", torch.randn(K, D))
        self.register_buffer("_embedding", None, persistent=False)

    @property
    def embedding(self):
        if self._embedding is None:
            self.register_buffer("_embedding", self.embedding_sum / self.cluster_usage[:, None], persistent=False)
        return self._embedding

    def encode(self, x):
        return closest(x.reshape(-1, D), self.embedding).reshape(x.shape[:-1])

    def forward(self, x):
        ids = self.encode_flat(x)
        q = F.embedding(ids, self.embedding).reshape(x.shape)
        if self.training:
            one_hot = F.one_hot(ids, K).float()
            self.cluster_usage.mul_(0.9).add_(0.1 * one_hot.sum(0))
            self.embedding_sum.mul_(0.9).add_(0.1 * one_hot.T @ x.detach().reshape(-1, D))
            self.register_buffer("_embedding", None)
        return MoshiResult(q, ids.reshape(x.shape[:-1]), {})

    def encode_flat(self, x):
        return closest(x.reshape(-1, D), self.embedding)


class Moshi(nn.Module):
    def __init__(self):
        super().__init__()
        self.project_in, self.project_out = nn.Linear(8, D), nn.Linear(D, 8)
        self._codebook = MoshiCodebook()

    def forward(self, x):
        x = self.project_in(x.movedim(1, -1))
        q, codes, metrics = self._codebook(x)
        loss = F.mse_loss(x, q.detach())
        return {"q": self.project_out(through(x, q)).movedim(-1, 1), "codes": codes, "loss": loss, "metrics": metrics}


class BinarySpherical(nn.Module):
    """Bits on a sphere, as many as no table holds, and the indices under a name."""

    def __init__(self, bits=36):
        super().__init__()
        self.embed_dim = bits
        self.register_buffer("basis", 2 ** torch.arange(bits - 1, -1, -1))

    def forward(self, z):
        z = F.normalize(z, dim=1)
        q = z.sign() / self.embed_dim**0.5
        indices = ((tokens(q) > 0) * self.basis).sum(1)
        return through(z, q), z.mean(), {"H": z.std(), "indices": indices, "avg_prob": z.softmax(1)}


class TamingAverages(nn.Module):
    """A table that keeps its own statistics beside its parent."""

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.embed_avg = (nn.Parameter(torch.randn(K, D), requires_grad=False) for _ in range(2))
            self.cluster_size = nn.Parameter(torch.ones(K), requires_grad=False)

        def forward(self, ids):
            return F.embedding(ids, self.weight)

    def __init__(self):
        super().__init__()
        self.codebook_dim, self.num_tokens, self.beta = D, K, 0.25
        self.embedding = self.Table()

    def forward(self, z):
        ids = closest(tokens(z), self.embedding.weight)
        q = self.embedding(ids)
        one_hot = F.one_hot(ids, K).float()
        if self.training:
            self.embedding.cluster_size.data.mul_(0.9).add_(0.1 * one_hot.sum(0))
            self.embedding.embed_avg.data.mul_(0.9).add_(0.1 * one_hot.T @ tokens(z).detach())
            self.embedding.weight.data.copy_(self.embedding.embed_avg / self.embedding.cluster_size[:, None])
        loss = self.beta * F.mse_loss(q.detach(), tokens(z))
        return images(through(tokens(z), q), z), loss, (torch.tensor(1.0), one_hot, ids)


def spy_bits(module: nn.Module, seen: Seen) -> None:
    def tell(args, kwargs, output):
        z = flat(args[0], 1)
        seen("vq", Tokens(output[2]["indices"], z, z.sign() / module.embed_dim**0.5))

    on_return(module, tell)


def spy_moving(module: nn.Module, seen: Seen, axis: int = 1, where=lambda out: (out[0], out[1])) -> None:
    """What the module returned, for its table has moved by then."""

    def tell(args, kwargs, output):
        quantized, ids = where(output)
        seen("vq", Tokens(ids.flatten(), flat(args[0], axis), flat(quantized, axis)))

    on_return(module, tell)


def spy_projected(module: nn.Module, seen: Seen) -> None:
    def tell(args, kwargs, output):
        table = module.embedding_proj.weight.detach()
        table = module.embedding.weight @ table.T + module.embedding_proj.bias.detach()
        z = flat(args[0], 1)
        ids = nearest(z, table)
        seen("vq", Tokens(ids, z, table[ids]))

    on_return(module, tell)


def spy_drawn(module: nn.Module, seen: Seen) -> None:
    """By hand: the code that each output is."""

    def tell(args, kwargs, output):
        table = (module.embed if hasattr(module, "embed") else module.codebook).weight.detach()
        drawn = flat(output[0], 1)
        ids = torch.tensor([[torch.allclose(each, code, atol=1e-6) for code in table].index(True) for each in drawn])
        seen("vq", Tokens(ids, torch.full_like(drawn, torch.nan), table[ids]))

    on_return(module, tell)


def spy_soft(module: nn.Module, seen: Seen) -> None:
    def tell(args, kwargs, output):
        ids = output[2][2].flatten()
        table = module.embed.weight.detach()
        seen("vq", Tokens(ids, torch.full((len(ids), D), torch.nan), table[ids]))

    on_return(module, tell)


def spy_dot(module: nn.Module, seen: Seen) -> None:
    def tell(args, kwargs, output):
        z, table = flat(args[0], 1), module.embedding.weight.detach()
        ids = (z @ table.T).argmax(1)
        seen("vq", Tokens(ids, z, table[ids]))

    on_return(module, tell)


def spy_descript(module: nn.Module, seen: Seen) -> None:
    def tell(args, kwargs, output):
        z, table = flat(output[4], 1), module.codebook.weight.detach()
        ids = nearest(unit(z), unit(table))
        seen("vq", Tokens(ids, z, table[ids]))

    on_return(module, tell)


def spy_moshi(module: nn.Module, seen: Seen) -> None:
    def tell(args, kwargs, output):
        seen("vq", Tokens(output.codes.flatten(), flat(args[0]), flat(output.quantized).clone()))

    on_return(module._codebook, tell)


def of(name: str):
    """The table of a child of that name."""
    return lambda module: {"vq": getattr(module, name).weight.detach()}


IMAGES = (3, D, 3, 3)

COPIES = {
    "taming first": Stranger(TamingFirst, IMAGES, spy_table, of("embedding")),
    "taming": Stranger(Taming, IMAGES, spy_table, of("embedding")),
    "taming not legacy": Stranger(lambda: Taming(legacy=False), IMAGES, spy_table, of("embedding")),
    "taming sane shape": Stranger(lambda: Taming(sane_index_shape=True), IMAGES, spy_table, of("embedding")),
    "taming remap": Stranger(lambda: Taming(remap="used.npy"), IMAGES, spy_table, of("embedding")),
    "taming gumbel": Stranger(TamingGumbel, (2, 6, 3, 3), spy_drawn, of("embed")),
    "taming gumbel remap": Stranger(lambda: TamingGumbel(remap="used.npy"), (2, 6, 3, 3), spy_drawn, of("embed")),
    "taming gumbel soft": Stranger(lambda: TamingGumbel(straight_through=False), (2, 6, 3, 3), spy_soft, of("embed")),
    "llamagen": Stranger(
        LlamaGen,
        IMAGES,
        lambda module, seen: spy_table(module, seen, scaled=True),
        lambda module: {"vq": unit(module.embedding.weight.detach())},
    ),
    "llamagen raw": Stranger(lambda: LlamaGen(l2_norm=False), IMAGES, spy_table, of("embedding")),
    "simvq": Stranger(
        SimVQ,
        IMAGES,
        spy_projected,
        lambda module: {"vq": module.embedding_proj(module.embedding.weight).detach()},
    ),
    "cvq": Stranger(
        CVQ,
        IMAGES,
        lambda module, seen: spy_moving(module, seen, where=lambda out: (out[0], out[2][2])),
        of("embedding"),
    ),
    "ibq": Stranger(IBQ, IMAGES, spy_dot, of("embedding")),
    "binary spherical": Stranger(BinarySpherical, (2, 36, 3, 3), spy_bits, levels=(2,) * 36),
    "taming averages": Stranger(
        TamingAverages,
        IMAGES,
        lambda module, seen: spy_moving(module, seen, where=lambda out: (out[0], out[2][2])),
        of("embedding"),
    ),
    "serezd": Stranger(SerezD, IMAGES, spy_table, of("codebook")),
    "serezd moving": Stranger(SerezDMoving, IMAGES, spy_moving, of("codebook")),
    "serezd gumbel": Stranger(SerezDGumbel, (2, K, 3, 3), spy_drawn, of("codebook")),
    "jukebox": Stranger(
        Jukebox,
        (2, D, 20),
        lambda module, seen: spy_moving(module, seen, where=lambda out: (out[1], out[0])),
        lambda module: {"vq": module.k},
    ),
    "descript": Stranger(Descript, (2, 8, 10), spy_descript, of("codebook")),
    "moshi": Stranger(
        Moshi,
        (2, 8, 10),
        spy_moshi,
        lambda module: {"vq": module._codebook.embedding_sum / module._codebook.cluster_usage[:, None]},
    ),
}
