"""What is said of usage: always with window, tokens and ceiling, and a verdict only where the limits are met."""

import numpy as np
import pytest

from vqtool.diagnostics import stats


def test_the_queue_of_65536_tokens_is_read_against_its_ceiling():
    # LlamaGen's 97.0 % at K = 16,384 (FoundationVision/LlamaGen, issue 65) is nearly all that such a queue can show.
    hits = np.zeros(16_384, int)
    hits[:15_892] = 4
    hits[0] += 65_536 - hits.sum()
    seen = stats.usage(hits, "the last 65,536 tokens")
    assert seen.of_ceiling == "97.0 % of a 98.2 % ceiling"
    assert str(seen).startswith(
        "97.0 % of a 98.2 % ceiling (15,892 of 16,384 codes used by 65,536 tokens, the last 65,536 tokens); coverage"
    )
    assert str(seen).endswith("no verdict: 65,536 tokens, fewer than the 131,072 (8 per code) that a verdict takes")


def test_usage_is_what_the_functions_say():
    hits = np.random.default_rng(0).poisson(2, 64)
    seen = stats.usage(hits, "here")
    assert (seen.used, seen.tokens, seen.codes) == (stats.codes_used(hits), hits.sum(), 64)
    assert seen.ceiling == stats.expected_codes_used(64, hits.sum())
    assert seen.coverage == stats.coverage(hits)
    assert seen.chao1 == stats.chao1(hits)
    assert seen.corrected == stats.corrected_entropy(hits).perplexity
    assert seen.units is None


@pytest.mark.parametrize(
    ("hits", "told"),
    [
        ([8, 8, 8, 8], ""),
        ([8, 8, 8, 7], "31 tokens, fewer than the 32 (8 per code) that a verdict takes"),
        ([800] + [1] * 99, "coverage 89.0 %, below the 90.0 % that a verdict takes"),
        (
            [1, 1, 1, 1],
            "4 tokens, fewer than the 32 (8 per code) and coverage 0.0 %, below the 90.0 % that a verdict takes",
        ),
        ([0, 0, 0, 0], "0 tokens, fewer than the 32 (8 per code) that a verdict takes"),
    ],
)
def test_below_a_limit_there_is_no_verdict_and_the_limit_is_named(hits, told):
    seen = stats.usage(hits, "here")
    assert seen.enough == (not told)
    assert seen.shortfall == told


def test_a_codebook_that_was_not_counted_code_by_code_gets_no_verdict_and_no_figure():
    seen = stats.Usage(2**20, 2**24, "the pass", used=1e6)
    assert not seen.enough
    assert str(seen) == (
        "95.4 % of a 100.0 % ceiling (1,000,000 of 1,048,576 codes used by 16,777,216 tokens, the pass); no verdict:"
        " no count of every code that a verdict takes"
    )


def test_images_give_intervals_and_bounds_are_called_bounds():
    tokens = np.random.default_rng(1).integers(0, 64, (100, 32))
    many = stats.usage_of_images(tokens, 64, "here")
    assert many.units is not None
    assert (many.units.number, many.units.name) == (100, "images")
    assert "95 % over 100 images: perplexity at least " in str(many)
    assert "at least 64 codes in use (lower bounds)" in str(many)
    half = stats.usage_of_images(tokens, 128, "here")
    assert "codes in use (a lower bound)" in str(half)
    low, high, bounded = half.units.perplexity
    assert bounded
    assert low < 64 < high < 128


def test_too_few_images_get_no_interval():
    few = stats.usage_of_images(np.zeros((4, 8), int), 64, "here")
    assert few.intervals == ""
    assert "95 %" not in str(few)


def test_large_books_and_many_images_need_no_table_of_images_and_codes():
    import tracemalloc

    tokens = np.random.default_rng(2).integers(0, 16_384, (4000, 64), dtype=np.int32)
    tracemalloc.start()
    stats.usage_of_images(tokens, 16_384, "here")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000 * 16_384 * 8 / 8


def test_small_shares_keep_two_digits():
    assert [stats.percent(share) for share in (0, 0.00012, 0.5, 1, float("nan"))] == [
        "0.0 %",
        "0.012 %",
        "50.0 %",
        "100.0 %",
        "not known",
    ]


def test_a_number_of_codes_that_is_not_known_is_not_made_up():
    seen = stats.Usage(2**20, 2**24, "the pass", used=float("nan"))
    assert str(seen).startswith("usage not known, ceiling 100.0 % (? of 1,048,576 codes used by 16,777,216 tokens")
