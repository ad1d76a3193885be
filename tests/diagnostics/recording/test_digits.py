"""Implicit codebooks: digits by hand, the sketch against exact counts, and what it costs."""

import numpy as np
import pytest
import torch
from records import Records
from strangers import COPIES

from vqtool.diagnostics import CodebookMonitor
from vqtool.diagnostics.probes import CodebookReading
from vqtool.diagnostics.recording.digits import DigitWindow, digits_row
from vqtool.diagnostics.recording.records import CodebookRecord


def reading(indices, mask=None):
    empty = torch.zeros(len(indices), 2)
    return CodebookReading(indices, empty, empty, mask)


def by_hand(indices, levels):
    counts = [[0] * values for values in levels]
    for index in indices:
        for digit, values in enumerate(levels):
            counts[digit][index % values] += 1
            index //= values
    return tuple(count for digit in counts for count in digit)


@pytest.mark.parametrize("levels", [(2,) * 36, (8, 5, 5, 5), (3,)])
def test_digits_are_counted_as_by_hand(levels):
    size = int(np.prod([float(values) for values in levels]))
    indices = torch.randint(size, (300,), generator=torch.Generator().manual_seed(0))
    window = DigitWindow(levels, indices.device)
    window.add(reading(indices))
    window.close_step()
    row = window.close("vq", 1)
    assert row.hits == by_hand(indices.tolist(), levels)
    assert (row.tokens, row.forwards, row.window) == (300, 1, 1)
    assert window.close("vq", 2).hits == (0,) * sum(levels)


def test_dropped_and_padded_tokens_are_not_counted():
    indices = torch.tensor([5, -1, 3, 7])
    window = DigitWindow((2, 2, 2), indices.device)
    window.add(reading(indices, torch.tensor([True, True, True, False])))
    row = window.close("vq", 1)
    assert row.tokens == 2
    assert row.hits == by_hand([5, 3], (2, 2, 2))


def test_digits_of_counted_codes_are_those_of_their_indices():
    levels, rng = (3, 2, 4), np.random.default_rng(0)
    indices = rng.integers(0, 24, 500)
    hits, nothing = np.bincount(indices, minlength=24), np.full(24, np.nan, np.float32)
    record = CodebookRecord("vq", 1, 1, hits, nothing, nothing, nothing, nothing, nothing, nothing)
    row = digits_row(record, levels)
    assert row.hits == by_hand(indices.tolist(), levels)
    assert row.codes_seen == np.count_nonzero(hits)
    assert row.counted_exactly


@pytest.mark.parametrize("distinct", [100, 50_000, 1_500_000])
def test_the_sketch_estimates_distinct_codes_within_one_percent(distinct):
    indices = torch.arange(distinct) * 45_007  # far apart and regular: what a bad hash fails on
    window = DigitWindow((2,) * 36, indices.device)
    window.add(reading(indices))
    window.add(reading(indices))
    assert window.close("vq", 1).codes_seen == pytest.approx(distinct, rel=0.01)


def state_bytes(value):
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(state_bytes(part) for part in parts)


def test_a_codebook_of_two_to_the_36_is_watched_in_less_than_50_mb():
    torch.manual_seed(0)
    stranger = COPIES["binary spherical"]
    model, sink = stranger.host(), Records()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    monitor = CodebookMonitor(model, optimizer, [sink], every=2)
    for batch in stranger.batches(4):
        optimizer.zero_grad()
        model(batch)[0].square().mean().backward()
        optimizer.step()
    assert state_bytes(monitor.state_dict()) < 50e6
    assert not sink.records
    assert [row.step for row in sink.table("digits")] == [2, 4]
