"""Codebooks of a trained model, measured over a whole data set: ``measure_codebooks``."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import stats
from ..errors import InputError
from ..probes import Call, NotAQuantizerError, Reader, find_codebooks
from ..ranks import groups_over_ranks
from .codebook_watch import CodebookWatch, Detail
from .codebook_window import Window
from .hooks import watch
from .layers import LayersMeasurement
from .layers_watch import LayersWatch, watched_layers
from .modes import evaluating
from .records import CodebookRecord
from .rows import DigitsRow
from .sinks import Sink


@dataclass(frozen=True)
class CodebookMeasurement:
    """What one pass over a data set says of one codebook. Every figure is over all of its tokens.

    Attributes:
        name: The codebook's path in the model.
        codes: K.
        tokens: Tokens in the pass, without padding and dropped ones.
        record: Hits, distortion and norm of every code; None for an implicit codebook of more than 2^18 codes.
        digits: The codes of an implicit codebook digit by digit, else None.
        batches: The batches in random groups, for the intervals of ``usage``; None without a record. Which tokens are
            of one image cannot be known from outside, which are of one batch can.
    """

    name: str
    codes: int
    tokens: int
    record: CodebookRecord | None
    digits: DigitsRow | None
    batches: stats.ImageGroups | None = None

    @cached_property
    def statistics(self) -> stats.Usage:
        """All that is known of usage: coverage, corrected perplexity, intervals over batches where there are enough."""
        window = "the whole pass"
        if self.batches is not None:
            return stats.usage_of_groups(self.batches, window, "batches")
        return stats.Usage(self.codes, self.tokens, window, self.codes_used)

    @property
    def codes_used(self) -> float:
        """Codes with a hit; estimated where they are too many to be counted."""
        if self.record is not None:
            return float(stats.codes_used(self.record.hits))
        assert self.digits is not None
        return float("nan") if self.digits.codes_seen is None else self.digits.codes_seen

    @property
    def usage(self) -> float:
        """Share of the codes with a hit."""
        return self.codes_used / self.codes

    @property
    def ceiling(self) -> float:
        """Share that a perfectly uniform codebook would show on so many tokens: 1 - (1 - 1/K)^tokens on average."""
        return stats.expected_codes_used(self.codes, self.tokens) / self.codes

    @property
    def perplexity(self) -> float:
        """Exp of the entropy of code usage, in codes; NaN where not every code was counted."""
        return float("nan") if self.record is None else float(stats.perplexity(self.record.hits))

    def __str__(self) -> str:
        return f"{self.name}: {self.statistics}"


class Measured(dict[str, CodebookMeasurement]):
    """The measurement of each codebook by its name.

    Attributes:
        layers: What the layers, heads or groups of a quantizer do together, by what their names have in common.
        unaligned: Layers that cannot be compared token by token: name -> why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: dict[str, LayersMeasurement] = {}
        self.unaligned: dict[str, str] = {}

    def __str__(self) -> str:
        apart = [f"{name}: not measured together: {why}" for name, why in self.unaligned.items()]
        return "\n".join([*map(str, self.values()), *map(str, self.layers.values()), *apart])


@torch.no_grad()
def measure_codebooks(
    model: nn.Module,
    batches: Iterable[Any],
    sinks: Iterable[Sink[CodebookRecord]] = (),
    *,
    forward: Callable[[Any], Any] | None = None,
    read: Mapping[str, Reader] | None = None,
) -> Measured:
    """What the codebooks of a trained model do over a data set, with the model in evaluation mode and no optimizer.

        for measurement in measure_codebooks(model, loader).values():
            print(measurement)  # NAME: usage of its ceiling, coverage, perplexity, intervals over batches

    Of residual and grouped quantizers ``measured.layers`` has what their layers do together, token by token.

    The model, its training flags and the random numbers are left as they were.

    Args:
        model: Any module with quantizers in it that a probe recognises.
        batches: What ``forward`` takes, one after the other, on the model's device.
        sinks: Where one record of the whole pass goes, ``[TraceSink("runs/measured")]``; ``vqtool report`` shows it.
        forward: Runs the model on a batch; by default ``model(batch)``. A model whose quantizer is only reached by a
            method needs ``lambda batch: model.encode(batch)``.
        read: Readers for quantizers that no probe recognises, by their paths in the model.

    Returns:
        The measurement of each codebook by its name, and what layers do together.

    Raises:
        InputError: No quantizer in the model is recognised, or none was reached.
    """
    sinks = list(sinks)
    codebooks = find_codebooks(model, read)
    watches = {name: CodebookWatch(name, codebook, [], Detail(), late=False) for name, codebook in codebooks.items()}
    together = watched_layers(model, codebooks)
    handles = [
        watch(tap, _reader(watched, number, together))
        for watched in watches.values()
        for number, tap in enumerate(watched.codebook.taps)
    ]
    counted = {name: _Batches(watched) for name, watched in watches.items()}
    try:
        with evaluating(model):
            for batch in batches:
                (forward or model)(batch)
                for name, watched in watches.items():
                    watched.close_batch()
                    counted[name].close_batch()
                for layers in together:
                    layers.close_batch()
    finally:
        for handle in handles:
            handle.remove()
    measured = Measured()
    for name, watched in watches.items():
        if watched.window is not None:
            measured[name] = _measured(watched, counted[name].close(), sinks)
    if not measured:
        raise InputError(
            f"no batch reached {', '.join(watches)}: pass forward=, which runs the model on a batch, such as"
            " lambda batch: model.encode(batch)"
        )
    for layers in together:
        if (found := layers.close()) is not None:
            measured.layers[found.name] = found
        elif layers.unaligned:
            measured.unaligned[layers.ladder.name] = layers.unaligned
    for sink in sinks:
        sink.flush()
    return measured


def _reader(watched: CodebookWatch, number: int, together: Iterable[LayersWatch]) -> Callable[[Call], None]:
    def on_return(call: Call) -> None:
        with suppress(NotAQuantizerError):  # it is not among the measured then
            reading = watched.codebook.read(number, call)
            if reading is not None:
                watched.add(reading, step=1 if watched.window is None else 3)  # of the first batch alone a snapshot
                for layers in together:
                    layers.add(watched.name, reading)

    return on_return


class _Batches:
    """The hits of each batch, which the window adds up, in random groups of batches."""

    def __init__(self, watched: CodebookWatch):
        self._watched, self._deals = watched, stats.deals()
        self._groups: stats.ImageGroups | None = None
        self._before = np.zeros(0, np.int64)

    def close_batch(self) -> None:
        window = self._watched.window
        if not isinstance(window, Window):
            return
        if self._groups is None:
            self._groups, self._before = stats.ImageGroups.empty(len(window.hits)), np.zeros(len(window.hits), np.int64)
        hits = window.hits.cpu().numpy().copy()
        self._groups.add_unit(hits - self._before, next(self._deals))
        self._before = hits

    def close(self) -> stats.ImageGroups | None:
        """The groups of all ranks; None where codes were not counted one by one."""
        window = self._watched.window
        if self._groups is None or not isinstance(window, Window):
            return None
        return groups_over_ranks(self._groups, window.hits.device)


def _measured(watched: CodebookWatch, batches: stats.ImageGroups | None, sinks: list[Any]) -> CodebookMeasurement:
    record, rows = watched.close_window(0, {})
    snapshots = watched.take_snapshots()
    rows += [geometry for _, geometry in snapshots]
    for sink in sinks:
        if record is not None:
            sink.write(record)
        for row in rows if hasattr(sink, "write_row") else ():
            sink.write_row(row)
        for snapshot, _ in snapshots if hasattr(sink, "write_snapshot") else ():
            sink.write_snapshot(snapshot)
    digits = next((row for row in rows if isinstance(row, DigitsRow)), None)
    tokens = int(record.hits.sum()) if record is not None else (digits and digits.tokens) or 0
    return CodebookMeasurement(watched.name, watched.codebook.size, tokens, record, digits, batches)
