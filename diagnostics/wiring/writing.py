"""A code written by hand, wherever a quantizer keeps its table, with its averages or without."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..probes import WatchedCodebook
from ..probes.attributes import tensors
from .averages import kept_by


@torch.no_grad()
def write(codebook: WatchedCodebook, code: int, vector: Tensor, count: float | None) -> None:
    """Write a code (D,), and with ``count`` the count and the sum that go with it.

    None leaves sum and count as they are, as a reset does that does not know of them.
    """
    table, kept = codebook.codes(), kept_by(codebook)
    assert table is not None
    for place in {id(value): value for value in _places(codebook, table)}.values():
        rows = place.data.view(-1, place.shape[-1]) if place.ndim > 1 else None
        if rows is not None and rows.shape == table.shape and (kept is None or place is not kept.sums):
            rows[code] = vector.to(rows)
    if count is not None and kept is not None:
        kept.counts.data.view(-1)[code] = count
        kept.sums.data.view(-1, kept.sums.shape[-1])[code] = (vector * count).to(kept.sums)


def usual_count(codebook: WatchedCodebook) -> float | None:
    """The mean count of the codes, at least 1; None for a codebook that keeps none."""
    kept = kept_by(codebook)
    return None if kept is None else float(kept.counts.mean().clamp(min=1))


def _places(codebook: WatchedCodebook, table: Tensor) -> Iterator[Tensor]:
    """What may hold the table: beside the averages, among the parameters, and where it is read from."""
    if (kept := kept_by(codebook)) is not None:
        yield from (value for value in tensors(kept.module).values() if value.is_floating_point())
    yield from codebook.parameters()
    for module in codebook.module.modules():
        yield from (value for value in tensors(module).values() if value.data_ptr() == table.data_ptr())
