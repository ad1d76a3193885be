"""A revived code takes the first steps of a new parameter, whatever the optimizer has seen before."""

import copy

import pytest
import torch
from runs import same

from vqtool.vqgan.quantizers import DeadCodeReset, StandardQuantizer
from vqtool.vqgan.quantizers.rebirth import Rebirth

LR, LATE, K, D = 1e-2, 600, 4, 3
ADAMS = {
    "adam": lambda p: torch.optim.Adam(p, lr=LR),
    "adamw": lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.0),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=LR, amsgrad=True),
    "one by one": lambda p: torch.optim.Adam(p, lr=LR, foreach=False),
    "foreach": lambda p: torch.optim.Adam(p, lr=LR, foreach=True),
    "fused adam": lambda p: torch.optim.Adam(p, lr=LR, fused=True),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.0, fused=True),
    "other betas": lambda p: torch.optim.Adam(p, lr=LR, betas=(0.5, 0.9)),
}


def gradients(steps, seed=0):
    """Of the first codes always, of the last one now and then, as hits come."""
    drawn = torch.randn(steps, K, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn[:, -1] *= (torch.arange(steps) % 3 == 1)[:, None]
    return drawn


def walk(parameter, optimizer, steps):
    """The parameter before and after each step."""
    places = [parameter.detach().clone()]
    for gradient in steps:
        parameter.grad = gradient.clone()
        optimizer.step()
        places.append(parameter.detach().clone())
    return torch.stack(places)


@pytest.mark.parametrize("adam", ADAMS)
def test_revived_rows_walk_like_a_new_parameter_and_the_others_as_if_nothing_were(adam):
    start = torch.randn(K, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    watched, alone = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = [ADAMS[adam]([parameter]) for parameter in (watched, alone)]
    rebirth = Rebirth(optimizers[0], [watched])
    for parameter, optimizer in zip((watched, alone), optimizers, strict=True):
        walk(parameter, optimizer, gradients(LATE))
    with torch.no_grad():
        watched[2:] = 5.0
    rebirth.begin(torch.tensor([2, 3]))
    new = torch.nn.Parameter(torch.full((K, D), 5.0, dtype=torch.float64))
    afterwards = gradients(60, seed=2)
    revived, undisturbed = walk(watched, optimizers[0], afterwards), walk(alone, optimizers[1], afterwards)
    fresh = walk(new, ADAMS[adam]([new]), afterwards)
    torch.testing.assert_close(revived[:, 2:], fresh[:, 2:], rtol=0, atol=1e-3 * LR)  # eps is the difference
    assert torch.equal(revived[:, :2], undisturbed[:, :2])


@pytest.mark.parametrize("adam", ["adam", "adamw", "amsgrad", "fused adam"])
def test_a_reset_code_never_moves_much_more_than_the_learning_rate(adam):
    torch.manual_seed(0)
    quantizer = StandardQuantizer(K, D)
    optimizer = ADAMS[adam](quantizer.parameters())
    remedy = DeadCodeReset(quantizer, optimizer, every=LATE)
    latents = 0.1 * torch.randn(1, D, 8, 8)
    latents[0] += torch.tensor([1.0, 1, 1])[:, None, None]  # one code takes all, the others die
    walks, reset = [], None
    for number in range(LATE + 25):
        before = quantizer.codebook.detach().clone()
        optimizer.zero_grad()
        quantizer(latents).loss.backward()
        optimizer.step()
        walks.append((quantizer.codebook - before).detach().abs())
        if (codes := remedy.step()) is not None:
            reset, first = codes, number + 1
    assert reset is not None
    steps = torch.stack(walks[first:])[:, reset]
    assert steps.max() > 0.1 * LR
    assert steps.max() < 1.2 * LR


def test_after_a_resume_revived_rows_go_on_as_without_one():
    def begun():
        parameter = torch.nn.Parameter(torch.zeros(K, D, dtype=torch.float64))
        optimizer = ADAMS["adam"]([parameter])
        return parameter, optimizer, Rebirth(optimizer, [parameter])

    parameter, optimizer, rebirth = begun()
    walk(parameter, optimizer, gradients(50))
    rebirth.begin(torch.tensor([1]))
    walk(parameter, optimizer, gradients(5, seed=1))
    again, resumed, reborn = begun()
    again.data.copy_(parameter.data)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    reborn.load_state_dict(rebirth.state_dict())
    same(
        list(walk(parameter, optimizer, gradients(9, seed=2))),
        list(walk(again, resumed, gradients(9, seed=2))),
    )


def test_momentum_of_other_optimizers_is_cleared_and_their_steps_are_their_own():
    parameter, twin = (torch.nn.Parameter(torch.zeros(K, D, dtype=torch.float64)) for _ in range(2))
    optimizer, plain = (torch.optim.SGD([p], lr=LR, momentum=0.9) for p in (parameter, twin))
    rebirth = Rebirth(optimizer, [parameter])
    for each in ((parameter, optimizer), (twin, plain)):
        walk(*each, gradients(20))
    rebirth.begin(torch.tensor([0]))
    plain.state[twin]["momentum_buffer"][0] = 0
    moved, expected = walk(parameter, optimizer, gradients(5, seed=1)), walk(twin, plain, gradients(5, seed=1))
    assert torch.equal(moved, expected)


def test_with_more_dead_codes_than_latents_each_latent_is_drawn_before_one_is_drawn_again():
    torch.manual_seed(0)
    quantizer = StandardQuantizer(40, 2)
    remedy = DeadCodeReset(quantizer, every=1, noise=0.0)
    latents = torch.randn(1, 2, 4, 4) + 3  # 16 of them, and one code takes them all
    quantizer(latents)
    codes = remedy.step()
    assert len(codes) >= 36
    counts = torch.unique(quantizer.codebook[codes].detach(), dim=0, return_counts=True)[1]
    assert len(counts) == 16
    assert counts.max() - counts.min() <= 1
    assert (remedy.revived, remedy.repeats) == (len(codes), len(codes) - 16)
