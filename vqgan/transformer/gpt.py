"""The second stage: a decoder-only transformer over code indices, weight-compatible with taming-transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...diagnostics.errors import InputError, unknown
from ..training.checkpoint import load_weights


class Size(NamedTuple):
    """The size of the blocks."""

    layers: int
    heads: int
    width: int


#: Parameters with 1,024 tokens and a block of 512: 1.1 M, 5.4 M, 87.0 M, 304.9 M and (16,384 tokens, block 256) 1.41 B.
#: ``taming`` is the size of the FacesHQ, D-RIN and S-FLCKR models of Esser et al. 2021 (arXiv:2012.09841), and
#: ``taming-imagenet`` that of their class-conditional one, published as "1.4B".
SIZES = {
    "tiny": Size(layers=4, heads=4, width=128),
    "small": Size(layers=6, heads=8, width=256),
    "base": Size(layers=12, heads=12, width=768),
    "taming": Size(layers=24, heads=16, width=1024),
    "taming-imagenet": Size(layers=48, heads=24, width=1536),
}


def size_named(name: str) -> Size:
    """The size of that name.

    Raises:
        InputError: There is no such size.
    """
    if name not in SIZES:
        raise unknown("transformer size", name, SIZES)
    return SIZES[name]


class Cache(Protocol):
    """The keys and values of the tokens that a model has seen."""

    length: int
    """Tokens seen; the model adds to it after its last layer."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take in a layer's keys and values of T new tokens, (B, heads, T, head_dim); all (length + T) of both."""
        ...


class KVCache:
    """A static cache: memory for ``capacity`` tokens is set aside once, and a token writes its own place only.

    It is for sampling: no gradient flows back through it.

    Attributes:
        keys: (layers, B, heads, capacity, head_dim); only the first ``length`` tokens mean anything.
        values: The same of the values.
        length: Tokens seen; 0 makes the cache empty again.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], device: torch.device, dtype: torch.dtype):
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty_like(self.keys)
        self._layers = [(self.keys[i], self.values[i]) for i in range(len(self.keys))]  # views, taken once
        self.length = 0

    @torch.no_grad()
    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Cache``.

        Raises:
            InputError: The tokens are more than ``capacity``.
        """
        end, capacity = self.length + keys.shape[2], self.keys.shape[3]
        if end > capacity:
            raise InputError(f"{end} tokens do not fit into a cache for {capacity}")
        all_keys, all_values = self._layers[layer]
        all_keys[:, :, self.length : end] = keys
        all_values[:, :, self.length : end] = values
        return all_keys[:, :, :end], all_values[:, :, :end]


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(head_dim)) v (Vaswani et al. 2017, arXiv:1706.03762, eq. 1)."""

    def __init__(self, size: Size, attn_dropout: float, resid_dropout: float):
        super().__init__()
        self.heads = size.heads
        self.attn_dropout = attn_dropout
        self.key = nn.Linear(size.width, size.width)
        self.query = nn.Linear(size.width, size.width)
        self.value = nn.Linear(size.width, size.width)
        self.proj = nn.Linear(size.width, size.width)
        self.resid_drop = nn.Dropout(resid_dropout)

    def forward(self, x: Tensor, mask: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        """(B, T, width) -> the same; without a mask each token attends to those before it and to itself."""
        q, k, v = (self._split(project(x)) for project in (self.query, self.key, self.value))
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        causal = mask is None and x.shape[1] > 1
        dropout = self.attn_dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return self.resid_drop(self.proj(y.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, heads, T, head_dim)."""
        B, T, width = x.shape
        return x.view(B, T, self.heads, width // self.heads).transpose(1, 2)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), with the exact GELU."""

    def __init__(self, size: Size, attn_dropout: float, resid_dropout: float):
        super().__init__()
        width = size.width
        self.ln1 = nn.LayerNorm(width)
        self.ln2 = nn.LayerNorm(width)
        self.attn = Attention(size, attn_dropout, resid_dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(resid_dropout)
        )

    def forward(self, x: Tensor, mask: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        x = x + self.attn(self.ln1(x), mask, cache, layer)
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    """Logits of the next token, with the parameter names and the function of taming-transformers' ``mingpt.GPT``.

    Source: Esser et al. 2021 (arXiv:2012.09841), section 3.2, and CompVis/taming-transformers,
    ``modules/transformer/mingpt.py``. Weights begin as N(0, 0.02), biases and positions as zero.

    Args:
        vocab_size: V, codes and whatever else is a token: classes, a start token.
        block_size: Most tokens of a sequence.
        size: Layers, heads and width.
        embd_dropout: Dropout of the embedded tokens.
        resid_dropout: Dropout of what attention and MLP add.
        attn_dropout: Dropout of the attention weights.
        n_unmasked: The first so many tokens see each other in both directions; 0: each token sees those before it.

    Raises:
        InputError: The heads do not divide the width.
    """

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        size: Size,
        *,
        embd_dropout: float = 0.0,
        resid_dropout: float = 0.0,
        attn_dropout: float = 0.0,
        n_unmasked: int = 0,
    ):
        super().__init__()
        if size.width % size.heads:
            nearest = max(1, round(size.width / size.heads)) * size.heads
            raise InputError(f"width {size.width} is not a multiple of {size.heads} heads; the nearest is {nearest}")
        self.vocab_size, self.block_size, self.size, self.n_unmasked = vocab_size, block_size, size, n_unmasked
        self.tok_emb = nn.Embedding(vocab_size, size.width)
        self.pos_emb = nn.Parameter(torch.zeros(1, block_size, size.width))
        self.drop = nn.Dropout(embd_dropout)
        self.blocks = nn.ModuleList(Block(size, attn_dropout, resid_dropout) for _ in range(size.layers))
        self.ln_f = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, vocab_size, bias=False)
        self.apply(_initialise)

    def forward(self, indices: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits (B, T, V) of the tokens after each of ``indices`` (B, T) int64, which follow those in the cache.

        Raises:
            InputError: The sequence is longer than the block or the cache, or a cache begins with a part of the
                ``n_unmasked`` tokens: the first would have to see what is not there yet.
        """
        return self.head(self.features(indices, cache))

    def next_logits(self, indices: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits (B, V) of the token after the last one; see ``forward``."""
        return self.head(self.features(indices, cache)[:, -1])

    def features(self, indices: Tensor, cache: Cache | None = None) -> Tensor:
        """What the head sees, (B, T, width); see ``forward``."""
        past, T = (0 if cache is None else cache.length), indices.shape[1]
        self._check_length(past + T, cached=cache is not None)
        x = self.drop(self.tok_emb(indices) + self.pos_emb[:, past : past + T])
        mask = self._mask(past, T)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, cache, layer)
        if cache is not None:
            cache.length += T
        return self.ln_f(x)

    def new_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """An empty static cache for ``batch`` sequences of ``capacity`` tokens, by default a block.

        Raises:
            InputError: The capacity is larger than the block.
        """
        capacity = self.block_size if capacity is None else capacity
        self._check_length(capacity, cached=False)
        layers, heads, width = self.size
        device = self.pos_emb.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else self.pos_emb.dtype
        return KVCache((layers, batch, heads, capacity, width // heads), device, dtype)

    def visible(self, past: int, T: int) -> Tensor:
        """Which of the ``past`` + ``T`` tokens each of the last ``T`` attends to, (T, past + T) bool."""
        query = torch.arange(past, past + T, device=self.pos_emb.device)[:, None]
        key = torch.arange(past + T, device=self.pos_emb.device)
        return (key <= query) | (key < self.n_unmasked)

    def _mask(self, past: int, T: int) -> Tensor | None:
        plain = T == 1 or (past == 0 and self.n_unmasked <= 1)
        return None if plain else self.visible(past, T)

    def _check_length(self, length: int, *, cached: bool) -> None:
        if length > self.block_size:
            raise InputError(f"{length} tokens are too many for this transformer: its block_size is {self.block_size}")
        if cached and length < self.n_unmasked:
            raise InputError(
                f"a cache must begin with all {self.n_unmasked} unmasked tokens, not with {length} of them"
            )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def adamw(
    gpt: GPT, lr: float, *, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.01
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), by default as taming-transformers trains.

    Only the weights of linear layers decay: no bias, no normalization, no embedding, no position.
    """
    decayed = {module.weight for module in gpt.modules() if isinstance(module, nn.Linear)}
    groups = [
        {"params": [p for p in gpt.parameters() if p in decayed], "weight_decay": weight_decay},
        {"params": [p for p in gpt.parameters() if p not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def load_taming_weights(gpt: GPT, weights: Mapping[str, Tensor], source: Path) -> None:
    """Load the state dict of a taming-transformers ``mingpt.GPT`` into ``gpt``, all of it.

    Its buffers ``blocks.{i}.attn.mask`` say nothing that ``block_size`` and ``n_unmasked`` do not say: they are
    compared and left out.

    Raises:
        InputError: A name is missing or too many, a shape differs, or a mask is another: the first such, named.
    """
    masks = {f"blocks.{i}.attn.mask" for i in range(gpt.size.layers)} & weights.keys()
    expected = gpt.visible(0, gpt.block_size)
    for name in sorted(masks):
        mask = weights[name].to(expected.device).bool().squeeze()
        if not torch.equal(mask, expected):
            raise InputError(
                f"checkpoint {source} masks differently: {name!r} is of block_size {mask.shape[-1]} and n_unmasked "
                f"{int(mask[0].sum())}, this model of {gpt.block_size} and {gpt.n_unmasked}"
            )
    load_weights(gpt, {name: tensor for name, tensor in weights.items() if name not in masks}, source)
