import numpy as np

from vqtool.diagnostics.stats import lives


def hits():
    """Ten records of six codes: code 5 never lives, code 3 dies after record 4, code 1 after 7; code 2 has most."""
    counts = np.full((10, 6), 4)
    counts[:, 5], counts[5:, 3], counts[8:, 1], counts[:, 2] = 0, 0, 0, 9
    return counts


def test_codes_stand_in_the_order_of_their_last_hit_then_of_their_hits():
    assert lives.life_order(hits()).tolist() == [2, 0, 4, 1, 3, 5]


def test_a_code_that_never_lived_has_no_last_hit():
    assert lives.last_hits(hits()).tolist() == [9, 7, 9, 4, 9, -1]


def test_running_sums_give_the_same_order():
    counts = np.random.default_rng(0).poisson(0.05, (40, 200))
    order = lives.by_life(lives.last_hits(counts), counts.sum(0))
    assert order.tolist() == lives.life_order(counts).tolist()
