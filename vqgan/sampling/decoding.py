"""Sampling of code sequences and code grids from a transformer.

Nothing here waits for the device after the first token: codes are chosen, written and fed back where they are.

Guidance is classifier-free: logits = uncond + guidance (cond - uncond) (Ho & Salimans 2022, arXiv:2207.12598, eq. 6).
Their weight w is ``guidance`` - 1: with 1 the condition counts as it is, above 1 it counts more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ...diagnostics.errors import InputError
from ..transformer.gpt import GPT, Cache
from .settings import PLAIN, DrawingSettings, beyond


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """``logits`` (..., V) with -inf in place of those below the ``k``-th largest; its equals all stay.

    Raises:
        InputError: ``k`` is below 1.
    """
    if k < 1:
        raise beyond("top_k", k)
    least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def top_p_filter(logits: Tensor, p: float) -> Tensor:
    """``logits`` (..., V) with -inf outside the nucleus, the fewest most likely tokens whose probabilities reach ``p``.

    Never empty. Holtzman et al. 2019 (arXiv:1904.09751), eq. 2.

    Raises:
        InputError: ``p`` is not in (0, 1].
    """
    if not 0 < p <= 1:
        raise beyond("top_p", p)
    if p == 1:
        return logits
    descending, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = descending.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    outside = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(outside, -torch.inf)


def draw(logits: Tensor, drawing: DrawingSettings = PLAIN, generator: torch.Generator | None = None) -> Tensor:
    """One token per row of ``logits`` (B, V), (B,) int64.

    Args:
        logits: Of the tokens that may be drawn.
        drawing: How; its guidance is a matter of those who have both logits.
        generator: On the device of the logits; None: the global one.
    """
    logits = logits.float() / drawing.temperature
    logits = logits if drawing.top_k is None else top_k_filter(logits, drawing.top_k)
    logits = logits if drawing.top_p is None else top_p_filter(logits, drawing.top_p)
    if drawing.greedy:
        return logits.argmax(-1)
    # Of exponential clocks with rates p the first to ring is i with probability p_i; torch.multinomial would wait
    # for the device to look at its input.
    clocks = torch.empty_like(logits).exponential_(generator=generator)
    return (logits.softmax(-1) / clocks).argmax(-1)


@torch.no_grad()
def complete(
    gpt: GPT,
    prefix: Tensor,
    given: Tensor,
    total: int,
    drawing: DrawingSettings = PLAIN,
    *,
    unconditional: Tensor | None = None,
    allowed: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``given`` codes continued to ``total`` after each row of ``prefix``, (B, total) int64.

    The same generator state gives the same codes.

    Args:
        gpt: Samples in eval mode, whatever its mode is now.
        prefix: (B, P) int64, at least one token: a start token, a class, the codes of a condition.
        given: (B, G) int64, the first codes, any tokens; G may be 0.
        total: Codes of a sequence, the given ones among them.
        drawing: How codes are drawn; guidance other than 1 costs a second sequence per row.
        unconditional: For guidance: the prefix that says nothing, of the shape of ``prefix``.
        allowed: (A,) int64, strictly increasing, on the device of ``gpt``: the only tokens that may be sampled, such
            as the codes that occur in the training tokens; None: the whole vocabulary.
        generator: See ``draw``.

    Raises:
        InputError: An argument is wrong, or P + total - 1 tokens do not fit into the block.
    """
    rows = _checked_rows(gpt, prefix, drawing, unconditional, ranks=(2,))
    _check_allowed(gpt, allowed)
    B, G = _check_given(prefix, given, total)
    copies = len(rows) // B
    fed = torch.cat((rows, given.repeat(copies, 1)), 1)
    codes = [given]
    with _sampling(gpt):
        cache = gpt.new_cache(len(fed), fed.shape[1] + max(0, total - G - 1))
        for _ in range(total - G):
            code = _next_codes(gpt, fed, cache, drawing, allowed, generator)[:, None]
            codes.append(code)
            fed = torch.cat([code] * copies)
    return torch.cat(codes, 1)


@torch.no_grad()
def sliding_window_sample(
    gpt: GPT,
    prefix: Tensor,
    height: int,
    width: int,
    drawing: DrawingSettings = PLAIN,
    *,
    window: tuple[int, int] = (16, 16),
    unconditional: Tensor | None = None,
    allowed: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A grid of codes larger than those that ``gpt`` knows, in raster order, (B, height, width) int64.

    Each code sees the window around it: in the middle of the grid it is the window's middle row and column, at the
    border the window stops (taming-transformers, ``scripts/make_samples.py``). A grid of the window's size comes out
    as from ``complete``.

    Args:
        gpt: Trained on grids of the window's size, in raster order.
        prefix: (B, P) int64, the same at every position, or a map (B, height, width) int64, of which the window's
            part is the prefix.
        height: Rows of the grid, at least those of the window.
        width: Columns of the grid, at least those of the window.
        drawing: See ``complete``, as all that is not told here.
        window: Its rows and columns.
        unconditional: For guidance: the prefix that says nothing, of the shape of ``prefix``.
        allowed: The only tokens that may be sampled.
        generator: See ``draw``.

    Raises:
        InputError: An argument is wrong, or prefix and window do not fit into the block.
    """
    rows = _checked_rows(gpt, prefix, drawing, unconditional, ranks=(2, 3))
    _check_allowed(gpt, allowed)
    _check_grid(prefix, (height, width), window)
    copies = len(rows) // len(prefix)
    grid = rows.new_zeros(len(rows), height, width)
    with _sampling(gpt):
        cache = gpt.new_cache(len(rows), _prefix_at(rows, _Window(0, 0, window)).shape[1] + window[0] * window[1] - 1)
        before = None
        for position in range(height * width):
            i, j = divmod(position, width)
            around = _Window(_origin(i, height, window[0]), _origin(j, width, window[1]), window)
            if around != before:  # another window, another sequence: nothing that the cache holds is of use
                before, cache.length = around, 0
            seen = around.of(grid)[:, : (i - around.top) * window[1] + j - around.left]
            fed = torch.cat((_prefix_at(rows, around), seen), 1)[:, cache.length :]
            grid[:, i, j] = _next_codes(gpt, fed, cache, drawing, allowed, generator).repeat(copies)
    return grid[: len(prefix)]


class _Window(NamedTuple):
    top: int
    left: int
    size: tuple[int, int]

    def of(self, grid: Tensor) -> Tensor:
        """Its part of a (B, H, W) grid, (B, h * w)."""
        return grid[:, self.top : self.top + self.size[0], self.left : self.left + self.size[1]].flatten(1)


def _origin(position: int, side: int, window: int) -> int:
    """Where the window around ``position`` begins along one side of the grid."""
    return min(max(position - window // 2, 0), side - window)


def _prefix_at(rows: Tensor, around: _Window) -> Tensor:
    return rows if rows.ndim == 2 else around.of(rows)


def _next_codes(
    gpt: GPT,
    fed: Tensor,
    cache: Cache,
    drawing: DrawingSettings,
    allowed: Tensor | None,
    generator: torch.Generator | None,
) -> Tensor:
    """The codes that follow the cache and ``fed``, (B,) int64."""
    logits = gpt.next_logits(fed, cache)
    if drawing.guidance != 1:
        conditional, unconditional = logits.chunk(2)
        logits = unconditional + drawing.guidance * (conditional - unconditional)
    if allowed is None:
        return draw(logits, drawing, generator)
    return allowed[draw(logits[:, allowed], drawing, generator)]


@contextmanager
def _sampling(gpt: GPT) -> Iterator[None]:
    """Without dropout within the block."""
    was_training = gpt.training
    gpt.eval()
    try:
        yield
    finally:
        gpt.train(was_training)


def _checked_rows(
    gpt: GPT, prefix: Tensor, drawing: DrawingSettings, unconditional: Tensor | None, *, ranks: tuple[int, ...]
) -> Tensor:
    """The prefixes of all sequences: with guidance the unconditional ones come after the others."""
    if prefix.ndim not in ranks:
        allowed = " or ".join(("(B, P)", "(B, H, W)")[rank - 2] for rank in ranks)
        raise InputError(f"prefix {tuple(prefix.shape)} is not of the shape {allowed}")
    if prefix.numel() == 0:
        raise InputError(f"prefix {tuple(prefix.shape)} is empty: sampling begins with a token, such as a start token")
    rows = prefix
    if drawing.guidance != 1:
        if unconditional is None:
            raise InputError(f"guidance {drawing.guidance} needs an unconditional prefix beside the prefix")
        if unconditional.shape != prefix.shape:
            shapes = f"{tuple(unconditional.shape)} is not of the shape of the prefix {tuple(prefix.shape)}"
            raise InputError(f"the unconditional prefix {shapes}")
        rows = torch.cat((prefix, unconditional))
    least, most = rows.aminmax()
    if least < 0 or most >= gpt.vocab_size:
        found = f"{int(least)} to {int(most)}"
        raise InputError(f"prefix has tokens from {found}: this transformer knows 0 to {gpt.vocab_size - 1}")
    return rows


def _check_allowed(gpt: GPT, allowed: Tensor | None) -> None:
    if allowed is None:
        return
    if allowed.dtype != torch.int64 or allowed.ndim != 1 or len(allowed) == 0:
        raise InputError(f"allowed is {tuple(allowed.shape)} {allowed.dtype}: a list of tokens is (A > 0,) torch.int64")
    if not ((allowed.diff() > 0).all() & (allowed[0] >= 0) & (allowed[-1] < gpt.vocab_size)):
        found = f"{int(allowed.min())} to {int(allowed.max())}"
        raise InputError(f"allowed has tokens from {found}: they increase strictly within 0 to {gpt.vocab_size - 1}")


def _check_given(prefix: Tensor, given: Tensor, total: int) -> tuple[int, int]:
    """B and G."""
    if len(given) != len(prefix):
        raise InputError(f"codes are given for {len(given)} sequences, the prefix is of {len(prefix)}")
    if given.shape[1] > total:
        raise InputError(f"{given.shape[1]} codes are given, more than the {total} asked for")
    return len(given), given.shape[1]


def _check_grid(prefix: Tensor, grid: tuple[int, int], window: tuple[int, int]) -> None:
    if min(window) < 1 or grid[0] < window[0] or grid[1] < window[1]:
        raise InputError(f"a grid of {grid[0]} x {grid[1]} codes has no room for a window of {window[0]} x {window[1]}")
    if prefix.ndim == 3 and prefix.shape[1:] != grid:
        raise InputError(f"the prefix is a map of {tuple(prefix.shape[1:])} tokens, the grid of {grid} codes")
