"""The picture of a collapse: which code stands in which row, and what merging leaves of it."""

import numpy as np
import pytest

from vqtool.diagnostics.recording.heatmap import SIDE, Heatmap
from vqtool.diagnostics.stats.lives import life_order


def drawn(hits):
    heatmap = Heatmap(hits.shape[1])
    for record in hits:
        heatmap.add(record)
    return heatmap.image()


def lit(image):
    return (image != 255).any(axis=2)


@pytest.mark.parametrize(("records", "codes"), [(1, 8), (7, 8), (60, 300), (SIDE, SIDE)])
def test_the_rows_are_the_codes_by_their_last_hit(records, codes):
    hits = np.random.default_rng(records).poisson(0.05, (records, codes))
    image = lit(drawn(hits))
    alive = (hits > 0)[:, life_order(hits)].T
    np.testing.assert_array_equal(image, alive.repeat(SIDE // codes, axis=0).repeat(SIDE // records, axis=1))


def test_many_codes_are_merged_after_they_are_sorted():
    """One code in six lives: in the order of the codes every row of the picture would have a living one."""
    hits = np.zeros((4, 6 * SIDE), int)
    hits[:, ::6] = 3
    image = lit(drawn(hits))
    top = -(-SIDE // 6)
    assert image[:top].all()
    assert not image[top:].any()


def test_many_records_are_merged_by_their_maximum():
    hits = np.random.default_rng(0).poisson(0.3, (3 * SIDE + 5, 16))
    image = drawn(hits)
    merged = np.maximum.reduceat(hits, np.arange(0, len(hits), 4), axis=0)
    np.testing.assert_array_equal(lit(image), (merged > 0)[:, life_order(hits)].T.repeat(SIDE // 16, axis=0))
    brightest = image[..., 0].astype(int) == 255  # of the ramp's colours only the last; white has it too
    np.testing.assert_array_equal(
        brightest & lit(image), (merged == hits.max())[:, life_order(hits)].T.repeat(SIDE // 16, axis=0)
    )


def test_a_code_that_lives_for_one_record_stays_visible_however_long_the_run():
    hits = np.zeros((4 * SIDE, 3 * SIDE), int)
    hits[777, 700] = 1
    image = drawn(hits)
    assert image.shape[0] == SIDE
    assert image.shape[1] <= SIDE
    assert lit(image).any(axis=1).nonzero()[0].tolist() == [0]
    assert lit(image).sum() == 1


def test_what_is_kept_does_not_grow_with_the_records():
    heatmap = Heatmap(64)
    sizes = set()
    for _ in range(3 * SIDE):
        heatmap.add(np.ones(64, int))
        sizes.add(sum(value.nbytes for value in vars(heatmap).values() if isinstance(value, np.ndarray)))
    assert len(sizes) == 1
