"""The layers of quantizers under watch in a pass over a data set, token by token."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from .. import stats
from ..probes import CodebookReading, FoundCodebooks
from ..probes.find import unwrapped
from ..ranks import of_all_ranks
from .ladders import Ladder, ladders
from .layers import LayersMeasurement
from .residuals import Residuals, left_over

#: What a quantizer of several parts is called: GroupedResidualVQ, SplitResidualVectorQuantizer.
_QUANTIZER = re.compile(r"(Quanti[sz]er|Quanti[sz]ation|VQ|FSQ|LFQ)$")
#: More codes are not counted in tuples.
_LARGEST = 2**62


def watched_layers(model: nn.Module, codebooks: FoundCodebooks) -> list["LayersWatch"]:
    """A watch on the layers of each quantizer, and on all parts of one that has several lists of layers."""
    modules = {unwrapped(path): module for path, module in model.named_modules()}
    lists = [
        each
        for each in ladders(name for name, codebook in codebooks.items() if codebook.size < _LARGEST)
        if not isinstance(modules.get(each.name), nn.Sequential)
    ]
    found = [each for each in lists if len(each.codebooks) > 1] + wholes(lists, modules)
    return [LayersWatch(each, [codebooks[name].size for name in each.codebooks]) for each in found]


def wholes(lists: list[Ladder], modules: Mapping[str, nn.Module]) -> list[Ladder]:
    """The quantizers with several lists of layers in them, such as groups, each with all codebooks of these."""
    found: dict[tuple[str, ...], Ladder] = {}
    for path, module in modules.items():
        within = [each for each in lists if not path or each.name.startswith(f"{path}.")]
        if len(within) > 1 and _QUANTIZER.search(type(module).__name__):
            codebooks = tuple(name for each in within for name in each.codebooks)
            found.setdefault(codebooks, Ladder(path or "codebook", codebooks, layered=False))
    return [*found.values()]


class LayersWatch:
    """The layers of one quantizer, from batch to batch.

    Layers that saw equally many tokens in each of their calls of a batch are taken to have seen the same tokens in the
    same order. One that was not called in a batch was dropped there.

    Args:
        ladder: Which they are.
        codes: K of each.

    Attributes:
        unaligned: Why they cannot be compared token by token; empty where they can.
    """

    def __init__(self, ladder: Ladder, codes: list[int]):
        self.ladder = ladder
        self.unaligned = ""
        self._codes = codes
        self._number = {name: number for number, name in enumerate(ladder.codebooks)}
        self._read: list[list[Tensor]] = [[] for _ in codes]
        self._deals = stats.deals()
        self._tuples = stats.TupleCounter(codes)
        self._residuals = Residuals(len(codes))

    def add(self, codebook: str, reading: CodebookReading) -> None:
        """Take in one call of a codebook, which need not be among the layers."""
        if codebook in self._number:
            number = self._number[codebook]
            self._read[number].append(reading.indices.where(reading.counted, -1))
            if self.ladder.layered:
                self._residuals.add(number, reading)

    def close_batch(self) -> None:
        """Put the codes of a batch side by side. Here the host waits for the device."""
        read, self._read = self._read, [[] for _ in self._codes]
        calls = {tuple(map(len, layer)) for layer in read if layer}
        if len(calls) > 1:
            seen = " and ".join(f"{sum(lengths):,} (in calls: {len(lengths)})" for lengths in sorted(calls))
            self.unaligned = f"which tokens belong together cannot be known, layers saw {seen} of one batch"
        if self.unaligned or not calls:
            return
        (lengths,) = calls
        columns = [torch.cat(layer).cpu().numpy() if layer else np.full(sum(lengths), -1) for layer in read]
        self._tuples.add(np.stack(columns, 1), next(self._deals))

    def close(self) -> LayersMeasurement | None:
        """What was seen on all ranks; None where nothing was, or where ``unaligned`` says why it tells nothing."""
        own = self.unaligned, self._tuples.total(), self._residuals.sums()
        unaligned, tuples, residuals = zip(*of_all_ranks(own), strict=True)
        self.unaligned, merged = next(filter(None, unaligned), ""), stats.merge_tuples(tuples)
        if self.unaligned or not len(merged.counts):
            return None
        energy = left_over(residuals) if self.ladder.layered else [float("nan")] * len(self._codes)
        return LayersMeasurement(self.ladder.name, self.ladder.codebooks, merged, tuple(energy))
