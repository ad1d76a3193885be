"""How well codes are predicted, for each code at each position."""

import math

import numpy as np
import pytest
import torch

from vqtool.vqgan.transformer import likelihood as module
from vqtool.vqgan.transformer.gpt import GPT, Size
from vqtool.vqgan.transformer.likelihood import Likelihood, likelihood
from vqtool.vqgan.transformer.model import CodeTransformer, Vocabulary

K = 16
DEAD = torch.tensor([2, 3, 11])


@pytest.fixture(params=["raster", "spiral-out"])
def scene(code_model, request):
    """A class-conditional transformer and the test split."""
    return code_model(condition={"kind": "class"}, transformer={"order": request.param})


def slow_twin(model, split):
    """Hits, sums of the NLL, ranks of the targets and mass on dead codes, token by token."""
    hits, nll = np.zeros((4, 4, K), np.int64), np.zeros((4, 4, K))
    ranks, dead = [], []
    with torch.no_grad():
        for row in range(len(split)):
            prefix, codes = split.batch(np.array([row]))
            told = prefix[0].tolist()
            for place in model.order.tolist():
                i, j = divmod(place, 4)
                code = codes[0, i, j].item()
                p = model.gpt(torch.tensor([told]))[0, -1].double().softmax(-1).numpy()
                hits[i, j, code] += 1
                nll[i, j, code] -= math.log(p[code])
                ranks.append(sorted(p, reverse=True).index(p[code]))
                dead.append(sum(p[k] for k in DEAD))
                told.append(code)
    return hits, nll, np.array(ranks), np.array(dead)


def assert_same(a, b):
    assert np.array_equal(a.hits, b.hits)
    np.testing.assert_allclose(a.nll, b.nll, rtol=1e-5, atol=1e-6)
    assert a.figures() == pytest.approx(b.figures(), rel=1e-5)


def test_everything_equals_a_slow_loop_over_the_tokens(scene):
    model, split = scene
    found = likelihood(model, split, np.arange(8), DEAD)
    hits, nll, ranks, dead = slow_twin(model, split)
    assert np.array_equal(found.hits, hits)
    np.testing.assert_allclose(found.nll, nll, rtol=1e-4, atol=1e-4)
    assert found.figures() == pytest.approx(
        {
            "nll": nll.sum() / 128,
            "top1": (ranks < 1).mean(),
            "top5": (ranks < 5).mean(),
            "top10": (ranks < 10).mean(),
            "dead_mass": dead.mean(),
        },
        rel=1e-4,
    )
    assert 0 < (ranks < 1).mean() < (ranks < 5).mean() < (ranks < 10).mean() < 1


def test_hits_are_those_of_the_split(scene):
    model, split = scene
    found = likelihood(model, split, np.arange(8), DEAD)
    for i in range(4):
        for j in range(4):
            assert np.array_equal(found.hits[i, j], np.bincount(split.codes[:, i, j], minlength=K))


def test_the_loss_is_that_of_the_training(scene):
    model, split = scene
    found = likelihood(model, split, np.arange(8), DEAD)
    assert found.figures()["nll"] == pytest.approx(model(*split.batch(np.arange(8))).mean().item(), rel=1e-5)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_nothing_depends_on_the_size_of_the_batches(scene, monkeypatch, size):
    model, split = scene
    whole = likelihood(model, split, np.arange(8), DEAD)
    batches = []
    logits = model.logits

    def counting(prefix, codes):
        batches.append(len(codes))
        return logits(prefix, codes)

    monkeypatch.setattr(module, "HELD", size * 16 * 4 * model.gpt.size.width)
    monkeypatch.setattr(model, "logits", counting)
    assert_same(likelihood(model, split, np.arange(8), DEAD), whole)
    assert batches == {1: [1] * 8, 3: [3, 3, 2], 8: [8]}[size]


@pytest.mark.parametrize(("size", "widest"), [(Size(1, 1, 8), 100 + 1), (Size(1, 1, 64), 4 * 64)])
def test_neither_logits_nor_features_outgrow_their_budget(size, widest, monkeypatch):
    model = CodeTransformer(GPT(101, 4 * 4 + 1, size), Vocabulary(100, 0), (4, 4))
    sizes = []

    class Split:
        def batch(self, rows):
            sizes.append(len(rows))
            return torch.full((len(rows), 1), 100), torch.zeros(len(rows), 4, 4, dtype=torch.int64)

    monkeypatch.setattr(module, "HELD", 3 * 16 * widest)
    likelihood(model, Split(), np.arange(7), DEAD)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "HELD", 3 * 16 * widest - 1)
    likelihood(model, Split(), np.arange(7), DEAD)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "HELD", 1)
    likelihood(model, Split(), np.arange(2), DEAD)  # type: ignore[arg-type]
    assert sizes == [3, 3, 1, 2, 2, 2, 1, 1, 1]


def test_two_halves_together_are_the_whole(scene, monkeypatch):
    model, split = scene
    whole = likelihood(model, split, np.arange(8), DEAD)
    first, second = (likelihood(model, split, np.arange(8)[rank::2], DEAD) for rank in range(2))
    assert not np.array_equal(first.hits, second.hits)
    totals = ("_hits", "_nll", "_right", "_dead_mass")
    others = {id(getattr(first, name)): getattr(second, name) for name in totals}
    monkeypatch.setattr(module, "sum_over_ranks", lambda total: total.add_(others.pop(id(total))))
    first.reduce()
    assert_same(first, whole)
    assert not others  # each is summed once


def test_a_model_that_knows_nothing_says_so(scene):
    model, split = scene
    torch.nn.init.zeros_(model.gpt.head.weight)
    figures = likelihood(model, split, np.arange(8), DEAD).figures()
    V = 16 + 2 + 1
    assert figures["nll"] == pytest.approx(math.log(V), rel=1e-6)
    assert figures["dead_mass"] == pytest.approx(3 / V, rel=1e-6)
    assert (figures["top1"], figures["top5"], figures["top10"]) == (0, 0, 0)  # of equals none is likelier


def test_a_model_that_knows_all_has_no_loss(scene):
    model, split = scene

    class Oracle(torch.nn.Module):
        gpt, vocabulary, grid, order = model.gpt, model.vocabulary, model.grid, model.order
        sequence = staticmethod(model.sequence)

        def logits(self, prefix, codes):
            return 60 * torch.nn.functional.one_hot(self.sequence(codes), self.vocabulary.size).float()

    figures = likelihood(Oracle(), split, np.arange(8), DEAD).figures()  # type: ignore[arg-type]
    share = np.isin(split.codes, DEAD).mean()
    assert figures == pytest.approx({"nll": 0, "top1": 1, "top5": 1, "top10": 1, "dead_mass": share}, abs=1e-6)


def test_without_dead_codes_there_is_no_mass_on_them(scene):
    model, split = scene
    assert likelihood(model, split, np.arange(8), DEAD[:0]).figures()["dead_mass"] == 0


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_put_back_and_does_not_count(code_model, training):
    hidden = {"transformer": {"pkeep": 0.0, "dropout": 0.5}, "condition": {"kind": "class", "drop": 1.0}}
    model, split = code_model(**hidden)
    plain, _ = code_model(condition={"kind": "class"})
    model.train(training)
    found = likelihood(model, split, np.arange(8), DEAD)
    assert model.training == model.gpt.training == training
    assert_same(found, likelihood(plain, split, np.arange(8), DEAD))
    assert not found._nll.requires_grad


def test_sums_of_many_tokens_keep_their_digits():
    class Steady(torch.nn.Module):
        vocabulary, grid, order = Vocabulary(codes=2, condition=0), (1, 1), torch.tensor([0])

        def sequence(self, codes):
            return codes.flatten(1)

        def logits(self, prefix, codes):
            return torch.tensor([0.1, 0.0, -30.0]).expand(len(codes), 1, 3)

    found = Likelihood(Steady(), torch.tensor([1]))  # type: ignore[arg-type]
    for _ in range(20):
        found.add(torch.zeros(50_000, 1), torch.zeros(50_000, 1, 1, dtype=torch.int64))
    p = math.exp(-0.1) / (1 + math.exp(-0.1) + math.exp(-30.1))
    assert found.figures()["nll"] == pytest.approx(-math.log(1 - p), rel=1e-6)
    assert found.figures()["dead_mass"] == pytest.approx(p, rel=1e-6)
