"""Nearest-code search: argmin_k |z - e_k|^2 without ever holding tokens x codes.

With |z|^2 left out, the nearest code is the one of the greatest score z.e_k - |e_k|^2 / 2. One matmul with that bias
gives a tile of scores, which is read once while it is still in cache. Torch's maximum without indices is several times
faster than the one with them, so the search takes the maximum of each group of neighbouring codes and looks for the
index in the best group only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...diagnostics.errors import InputError
from .base import working_dtype

#: Neighbouring codes that share one maximum.
_GROUP = 64
#: Codes whose median is the centre: many enough that far ones stay a minority, few enough to cost next to nothing.
_SAMPLE = 63
#: Tokens and codes of one score tile: 8 MiB on the CPU; 32 MiB elsewhere, where few large kernels beat many small.
_CPU_TILE = (2048, 1024)
_TILE = (4096, 2048)


@torch.no_grad()
def nearest_codes(latents: Tensor, codebook: Tensor) -> Tensor:
    """The index of the code nearest to each latent in Euclidean distance.

    Both sides are moved by minus the median code c first, which changes no distance but keeps the digits that the
    expanded square loses on data far from the origin; codes far out do not pull it away while they are fewer than a
    third. The arithmetic is float32, or float64 where one side is, whatever the autocast and the matmul precision
    setting.

    With r = |z - c| + |e - c|, e the found code or the nearest one, whichever is farther from c, the squared distance
    of the found code exceeds the least one by at most (D + 8) 2^-23 r^2, and by 2^-23 r^2 as a rule (in float64 it is
    2^-52). So an index is the float64 argmin except where two codes are equally near within float32 rounding; codes far
    out cost the others nothing; a latent far from all codes gets the least distance but for its last digits. Only a
    crowd of codes far from c and near to each other loses more: as a rule it is told apart down to a spacing of
    r / 1000. Values are taken to be below 1e18, where squares fit.

    Equal codes go to the lowest index; a latent that is not finite goes to some valid index.

    Args:
        latents: (N, D), any floating dtype and layout; N may be 0.
        codebook: (K, D), on the same device.

    Returns:
        (N,) int64, without a graph and without host synchronization.

    Raises:
        InputError: The shapes are not (N, D) and (K, D) with K at least 1.
    """
    _check_shapes(latents, codebook)
    tile_tokens, tile_codes = _CPU_TILE if latents.device.type == "cpu" else _TILE
    indices = torch.empty(len(latents), dtype=torch.int64, device=latents.device)
    dtype = working_dtype(latents, codebook)
    with torch.autocast(latents.device.type, enabled=False), _exact_matmul(latents.device):
        center = _center(codebook).to(dtype)
        codes = _whole_groups(codebook.to(dtype) - center)
        bias = codes.square().sum(1) / -2
        tiles = list(zip(codes.split(tile_codes), bias.split(tile_codes), strict=True))
        scores = codes.new_empty(min(tile_tokens, len(latents)) * min(tile_codes, len(codes)))
        for part, out in zip(latents.split(tile_tokens), indices.split(tile_tokens), strict=True):
            out.copy_(_best_of_tiles(part.to(dtype) - center, tiles, scores))
    return indices.clamp_(max=len(codebook) - 1)


def _check_shapes(latents: Tensor, codebook: Tensor) -> None:
    if latents.ndim != 2 or codebook.ndim != 2 or latents.shape[1] != codebook.shape[1] or not len(codebook):
        raise InputError(
            f"latents {tuple(latents.shape)} and codebook {tuple(codebook.shape)} do not fit; "
            "the search takes (N, D) and (K, D) with K at least 1"
        )


def _center(codebook: Tensor) -> Tensor:
    """(D,) the median per dimension of the (K, D) codes, of ``_SAMPLE`` of them where there are more.

    A mean would follow a single code that lies far out, and all others would lose digits to its distance. The sample
    goes through the codes by steps of the golden ratio, which meet a run of indices and every n-th index alike in
    proportion to their number; of a random 30 % of the codes, it takes a majority once in 700 codebooks.
    """
    K = len(codebook)
    if K > _SAMPLE:
        steps = torch.arange(_SAMPLE, device=codebook.device)
        codebook = codebook[steps * 40_503 % 65_536 * K // 65_536]  # 40503 / 65536 = 0.618
    # The least of the upper half: torch.median says no on CUDA under torch.use_deterministic_algorithms.
    return codebook.topk(len(codebook) // 2 + 1, dim=0, sorted=False).values.amin(0)


def _whole_groups(codes: Tensor) -> Tensor:
    """(K, D) codes with the last one repeated until there are whole groups of them.

    A repeated code scores as the last one does, so the caller clamps its index to K - 1.
    """
    missing = -len(codes) % _GROUP
    return torch.cat([codes, codes[-1:].expand(missing, -1)]) if missing else codes


def _best_of_tiles(tokens: Tensor, tiles: list[tuple[Tensor, Tensor]], scores: Tensor) -> Tensor:
    """(n,) index of the greatest score of each of (n, D) ``tokens`` over all ``tiles`` of codes and bias, in order."""
    best = tokens.new_full((len(tokens),), -torch.inf)
    indices = torch.zeros_like(best, dtype=torch.int64)
    first = 0
    for codes, bias in tiles:
        tile = scores[: len(tokens) * len(codes)].view(len(tokens), len(codes))
        top, index = _best_of_tile(torch.addmm(bias, tokens, codes.T, out=tile))
        indices = torch.where(top > best, index.add_(first), indices)
        best = torch.maximum(best, top)
        first += len(codes)
    return indices


def _best_of_tile(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(n, k) -> the greatest score of each row (n,) and where it stands (n,), the lowest place on ties."""
    groups = scores.view(len(scores), scores.shape[1] // _GROUP, _GROUP)
    top, group = groups.amax(2).max(1)
    members = groups.gather(1, group[:, None, None].expand(-1, 1, _GROUP)).squeeze(1)
    return top, members.argmax(1).add_(group, alpha=_GROUP)


@contextmanager
def _exact_matmul(device: torch.device) -> Iterator[None]:
    """Float32 products of float32 operands: TF32 (CUDA) and bfloat16 (CPU) shortcuts off inside, then as before."""
    backend: Any = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    matmul = backend.matmul
    before = matmul.fp32_precision
    if before not in ("tf32", "bf16"):
        yield
        return
    matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = "none"  # inherited from torch.backends: enough where that says the same
        if matmul.fp32_precision != before:
            matmul.fp32_precision = before


@contextmanager
def _exact_matmul_before_torch_2_9(device: torch.device) -> Iterator[None]:
    """The same, where one setting covers all devices."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


if not hasattr(torch.backends, "fp32_precision"):
    _exact_matmul = _exact_matmul_before_torch_2_9
