"""The last records of a codebook are pooled until usage may be judged; until then no code is called dead."""

import numpy as np

from vqtool.diagnostics.recording.recent import recent
from vqtool.diagnostics.recording.trace import CodebookTrace


def trace(hits, steps=5):
    hits = np.asarray(hits, np.int64)
    return CodebookTrace("vq", steps * np.arange(1, len(hits) + 1), np.full(len(hits), steps), {"hits": hits})


def test_records_are_pooled_up_to_eight_tokens_per_code():
    # code 5 never lives, code 3 dies after record 4, code 1 after 7: the last records have 17, 17, 21, ... tokens
    hits = np.full((10, 6), 4)
    hits[:, 5], hits[5:, 3], hits[8:, 1], hits[:, 2] = 0, 0, 0, 9
    end = recent(trace(hits))
    assert (end.records, end.steps, end.usage.tokens, end.usage.enough) == (3, 15, 17 + 17 + 21, True)
    assert np.flatnonzero(end.unused).tolist() == [3, 5]
    assert end.names == ("dead", "live")
    assert str(end) == "the last 3 records (15 steps, 55 tokens)"


def test_records_are_pooled_on_while_coverage_is_below_nine_tenths():
    hits = np.ones((3, 100))
    hits[:, 0] = 800
    end = recent(trace(hits))
    assert (end.records, end.usage.enough) == (2, True)
    end = recent(trace(hits[:1]))
    assert not end.usage.enough
    assert end.usage.shortfall == "coverage 89.0 %, below the 90.0 % that a verdict takes"


def test_where_all_records_are_too_few_no_code_is_called_dead():
    end = recent(trace([[3, 0], [3, 0]]))
    assert (end.records, end.usage.enough) == (2, False)
    assert end.names == ("without a hit", "with hits")
    assert str(end) == "the last 2 records (10 steps, 6 tokens, too few for a verdict)"


def test_a_pass_of_a_trained_model_has_no_steps():
    end = recent(trace([[9, 9]], steps=0))
    assert end.usage.window == end.span == "the whole pass"
    assert str(end) == "the whole pass (18 tokens)"
