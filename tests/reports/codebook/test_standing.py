import numpy as np
import pytest

from vqtool.diagnostics import stats
from vqtool.diagnostics.recording.recent import recent
from vqtool.diagnostics.recording.trace import CodebookTrace
from vqtool.reports.codebook.standing import Standing, pooled_use, standing

K = 64


def planted(*used: int, tokens_per_code: int = 4, begun: int = 0) -> CodebookTrace:
    """A trace whose records use the first so many of 64 codes evenly, each over ten steps and as many tokens."""
    hits = np.zeros((len(used), K), np.int64)
    for record, codes in zip(hits, used, strict=True):
        record[:codes] = tokens_per_code * K // codes
        record[0] += tokens_per_code * K - record.sum()
    steps = begun + 10 * np.arange(1, len(used) + 1)
    return CodebookTrace("quantize", steps, np.full(len(used), 10), {"hits": hits})


def trend(seen: Standing) -> str | None:
    return seen.trend and seen.trend.name


def test_a_healthy_codebook_was_so_from_the_start():
    assert str(standing(planted(*[K] * 20))) == (
        "In training, codebook quantize used 64 of 64 codes over the last 2 records (20 steps, 512 tokens),"
        " 100.0 % of a 100.0 % ceiling; so, give or take 6 codes, from the start; steady over the last third of the"
        " run (64 codes up to step 130, 64 up to step 200)."
    )


def test_a_codebook_that_dies_is_falling():
    seen = standing(planted(*range(62, 2, -3)))
    assert seen.used == 8
    assert trend(seen) == "falling"
    assert "falling over the last third of the run (29 codes up to step 130, 8 up to step 200)" in str(seen)
    assert seen.since is not None
    assert seen.since >= 170


def test_a_codebook_that_died_early_is_steady_since_then():
    seen = standing(planted(*[K] * 3, *[8] * 17))
    assert (seen.used, seen.since, trend(seen)) == (8, 30, "steady")
    assert "used 8 of 64 codes" in str(seen)
    assert "; so, give or take 1 code, since step 30; steady" in str(seen)


def test_a_codebook_that_is_revived_is_rising():
    seen = standing(planted(*[8] * 14, *[K] * 6))
    assert (seen.used, trend(seen)) == (K, "rising")
    assert seen.since == 130  # the first window of two records that shows them begins there
    assert "rising over the last third of the run (8 codes up to step 130, 64 up to step 200)" in str(seen)


def test_a_dip_counts_against_since_and_not_against_the_trend():
    seen = standing(planted(*[K] * 15, 8, 8, *[K] * 3))
    assert (seen.since, trend(seen)) == (160, "steady")


def test_a_trace_too_short_for_a_verdict_gets_none():
    seen = standing(planted(40, 40, tokens_per_code=1))
    assert (seen.since, seen.trend) == (None, None)
    ceiling = stats.expected_codes_used(K, 2 * K) / K
    assert str(seen) == (
        "In training, codebook quantize used 40 of 64 codes over the last 2 records (20 steps, 128 tokens),"
        f" 62.5 % of a {100 * ceiling:.1f} % ceiling; no verdict, and no code is called dead: 128 tokens, fewer than"
        " the 512 (8 per code) that a verdict takes."
    )


def test_a_single_window_does_not_tell_since_when():
    seen = standing(planted(40, 40))
    assert (seen.end.usage.enough, seen.since, seen.trend) == (True, None, None)
    assert str(seen).endswith("62.5 % of a 100.0 % ceiling; too few records to tell since when.")


def test_a_trend_takes_two_windows_that_share_no_record():
    seen = standing(planted(*[K] * 3))
    assert (seen.since, seen.trend) == (0, None)
    assert str(seen).endswith("from the start; too few records to tell a trend.")
    assert trend(standing(planted(*[K] * 4))) == "steady"


def test_a_trace_that_begins_late_is_so_since_it_began():
    assert standing(planted(*[K] * 6, begun=500)).since == 500


def test_a_trace_without_tokens_and_one_with_a_single_code_have_a_sentence():
    bare = planted(1)
    for hits in (np.zeros((1, K), np.int64), np.full((1, 1), 9)):
        one = CodebookTrace("quantize", bare.steps, bare.window, {"hits": hits})
        assert str(standing(one)).startswith(
            f"In training, codebook quantize used {hits.any():d} of {hits.shape[1]} code"
        )


@pytest.mark.parametrize("seed", range(3))
def test_pooled_windows_are_those_that_a_verdict_at_each_record_takes(seed):
    hits = np.random.default_rng(seed).poisson(0.7, (40, 30)) * (np.random.default_rng(seed + 9).random((40, 1)) < 0.8)
    first, used = pooled_use(hits)
    for t in range(len(hits)):
        end = recent(CodebookTrace("", np.arange(t + 1), np.ones(t + 1, np.int64), {"hits": hits[: t + 1]}))
        assert (first[t] >= 0) == end.usage.enough
        if end.usage.enough:
            assert (first[t], used[t]) == (t + 1 - end.records, stats.codes_used(end.hits))
