import math

import pytest
import torch

from vqtool.vqgan.training.optimization import adam, learning_rate, set_learning_rate
from vqtool.vqgan.training.settings import OptimizerSettings


def rates(steps, **settings):
    return [learning_rate(OptimizerSettings(lr=2.0, **settings), step, steps) for step in range(steps)]


def test_the_rate_is_constant_unless_asked_otherwise():
    assert rates(5) == [2.0] * 5


def test_the_rate_rises_linearly_and_reaches_its_peak_with_the_last_step_of_the_warm_up():
    assert rates(6, warmup_steps=4) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_cosine_falls_from_the_peak_after_the_warm_up_to_its_end(warmup):
    steps = 13
    expected = [
        2.0 * (step + 1) / warmup
        if step < warmup
        else 0.2 + 1.8 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
        for step in range(steps)
    ]
    found = rates(steps, warmup_steps=warmup, schedule="cosine", min_lr_share=0.1)
    assert found == pytest.approx(expected)
    assert max(found) == found[warmup] == 2.0
    assert learning_rate(OptimizerSettings(lr=2.0, schedule="cosine", min_lr_share=0.1), 13, 13) == pytest.approx(0.2)


def test_half_way_down_the_cosine_is_half_the_rate():
    assert rates(10, schedule="cosine")[5] == pytest.approx(1.0)


def test_a_warm_up_longer_than_the_run_never_reaches_the_peak():
    assert max(rates(3, warmup_steps=10, schedule="cosine")) == pytest.approx(0.6)


def test_adam_takes_the_settings_and_leaves_alone_what_has_no_gradient():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = adam([weight], OptimizerSettings(lr=0.1, betas=(0.3, 0.7)))
    weight.grad = torch.tensor([1.0, 0.0])
    optimizer.step()
    assert weight.tolist() == pytest.approx([0.9, 1.0])
    assert optimizer.param_groups[0]["betas"] == (0.3, 0.7)


def test_a_rate_is_put_into_every_group():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(2)]
    optimizer = torch.optim.Adam(groups, lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
