"""Codes drawn from a transformer: in its order, under its condition, of those that it has learned."""

import numpy as np
import pytest
import torch

from vqtool.vqgan.sampling.drawing import Choice, draw_codes, draw_large, known_codes
from vqtool.vqgan.sampling.settings import PLAIN, DrawingSettings

KNOWN = torch.tensor([0, 3, 4, 9, 15])
ALL = torch.arange(16)


@pytest.fixture
def scene(code_model):
    """A class-conditional transformer with an order of its own, and prefixes (6, 1)."""
    model, split = code_model(condition={"kind": "class", "drop": 0.1}, transformer={"order": "spiral-out"})
    return model, split.batch(np.arange(6))[0]


def drawn(known, seed=0):
    """Codes drawn as they are likely."""
    return Choice(known, PLAIN, torch.Generator().manual_seed(seed))


def greedy(known, scale=1.0):
    return Choice(known, DrawingSettings(greedy=True, guidance=scale))


def most_likely(model, prefix, known, scale=1.0, given=()):
    """Greedy codes of one prefix (P,), (4, 4), by whole passes over all tokens."""
    codes = list(given)
    for _ in range(16 - len(codes)):
        scores = model.gpt(torch.tensor([[*prefix, *codes]]))[0, -1]
        if scale != 1:
            nothing = [model.vocabulary.nothing] * len(prefix)
            without = model.gpt(torch.tensor([[*nothing, *codes]]))[0, -1]
            scores = without + scale * (scores - without)
        codes.append(max(known.tolist(), key=lambda code: scores[code].item()))
    grid = torch.empty(16, dtype=torch.int64)
    grid[model.order] = torch.tensor(codes)
    return grid.view(4, 4)


@pytest.mark.parametrize("scale", [1.0, 2.5, 0.0])
def test_greedy_codes_are_those_of_a_slow_loop(scene, scale):
    model, prefix = scene
    grids = draw_codes(model, prefix, greedy(KNOWN, scale))
    assert grids.shape == (6, 4, 4)
    for row in range(6):
        assert torch.equal(grids[row], most_likely(model, prefix[row].tolist(), KNOWN, scale))


def test_guidance_of_zero_forgets_the_condition(scene):
    model, prefix = scene
    without, with_it = (draw_codes(model, prefix, greedy(ALL, scale)) for scale in (0.0, 4.0))
    assert len(without.unique(dim=0)) == 1
    assert len(with_it.unique(dim=0)) == 2  # as many as there are classes


def test_codes_that_never_occurred_are_not_drawn(scene):
    model, prefix = scene
    prefix = prefix.repeat(20, 1)
    assert draw_codes(model, prefix, drawn(ALL)).unique().numel() == 16
    assert draw_codes(model, prefix, drawn(KNOWN)).unique().tolist() == KNOWN.tolist()


def test_the_first_codes_in_the_order_of_the_model_may_be_given(scene):
    model, prefix = scene
    given = torch.randint(16, (6, 7), generator=torch.Generator().manual_seed(1))
    grids = draw_codes(model, prefix, greedy(KNOWN), given)
    assert torch.equal(model.sequence(grids)[:, :7], given)
    for row in range(6):
        assert torch.equal(grids[row], most_likely(model, prefix[row].tolist(), KNOWN, given=given[row].tolist()))


def test_the_same_generator_draws_the_same_codes(scene):
    model, prefix = scene
    first, again, other = (draw_codes(model, prefix, drawn(ALL, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_known_codes_are_those_with_a_hit():
    known = known_codes(np.array([3, 0, 1, 0, 0, 9]), torch.device("cpu"))
    assert known.dtype == torch.int64
    assert known.tolist() == [0, 2, 5]


def test_a_large_image_of_the_size_of_the_window_is_an_ordinary_one(code_model):
    model, split = code_model(condition={"kind": "class", "drop": 0.1})
    prefix, grids = split.batch(np.arange(6))[0], {}
    for scale in (1.0, 4.0):
        choice = greedy(KNOWN, scale)
        large = draw_large(model, prefix, (4, 4), (4, 4), choice)
        assert torch.equal(large, draw_codes(model, prefix, choice))
        grids[scale] = large
    assert not torch.equal(grids[1.0], grids[4.0])


def test_a_large_image_has_its_own_size_and_known_codes_only(code_model):
    model, split = code_model(condition={"kind": "class"})
    grids = draw_large(model, split.batch(np.arange(3))[0], (6, 9), (4, 4), drawn(KNOWN))
    assert grids.shape == (3, 6, 9)
    assert set(grids.unique().tolist()) <= set(KNOWN.tolist())
