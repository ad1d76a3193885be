import pytest
import torch

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.transformer.orders import ORDERS, code_order, inverse, random

GRIDS = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (4, 4), (3, 5), (8, 4), (16, 16)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", ORDERS)
def test_every_order_visits_every_code_once(name, grid):
    order = code_order(name, *grid)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(grid[0] * grid[1]))


@pytest.mark.parametrize("name", ORDERS)
def test_the_inverse_puts_the_codes_back(name):
    order = code_order(name, 6, 6)
    codes = torch.randint(100, (3, 36), generator=torch.Generator().manual_seed(0))
    assert torch.equal(codes[:, order][:, inverse(order)], codes)
    assert torch.equal(order[inverse(order)], torch.arange(36))


@pytest.mark.parametrize(
    ("name", "visits"),
    [  # row t, column t: the number of the visit, on a grid of 4 x 4
        ("raster", [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]),
        ("alternate", [[0, 1, 2, 3], [7, 6, 5, 4], [8, 9, 10, 11], [15, 14, 13, 12]]),
        ("z-curve", [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]),
        ("spiral-out", [[9, 10, 11, 12], [8, 1, 2, 13], [7, 0, 3, 14], [6, 5, 4, 15]]),
        ("spiral-in", [[6, 5, 4, 3], [7, 14, 13, 2], [8, 15, 12, 1], [9, 10, 11, 0]]),
    ],
)
def test_the_orders_are_drawn_on_a_small_grid(name, visits):
    assert inverse(code_order(name, 4, 4)).view(4, 4).tolist() == visits


def test_a_spiral_goes_to_a_neighbour_at_each_step():
    order = code_order("spiral-out", 16, 16)
    steps = (order // 16).diff().abs() + (order % 16).diff().abs()
    assert torch.equal(steps, torch.ones(255, dtype=torch.int64))


def test_a_z_curve_finishes_each_quarter_before_the_next():
    quarters = code_order("z-curve", 16, 16).view(4, 64)
    for row, column, quarter in zip((0, 0, 8, 8), (0, 8, 0, 8), quarters, strict=True):
        assert {(i // 16 // 8 * 8, i % 16 // 8 * 8) for i in quarter.tolist()} == {(row, column)}


def test_a_random_order_depends_on_its_seed_alone():
    assert torch.equal(random(5, 5, seed=3), random(5, 5, seed=3))
    assert not torch.equal(random(5, 5, seed=3), random(5, 5, seed=4))


def test_the_random_order_is_the_one_that_published_models_were_trained_with():
    # RandomState(1) of NumPy, whose stream is frozen since 1.16
    assert code_order("random", 2, 4).tolist() == [7, 2, 1, 6, 0, 4, 3, 5]


def test_an_unknown_order_is_told_with_the_nearest():
    with pytest.raises(InputError, match=r"^code order 'zcurve' is unknown; did you mean 'z-curve'\?"):
        code_order("zcurve", 4, 4)


@pytest.mark.parametrize("name", ORDERS)
def test_an_empty_grid_is_refused(name):
    with pytest.raises(InputError, match=r"^a grid of 0 x 4 codes is empty"):
        code_order(name, 0, 4)
