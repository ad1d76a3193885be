import math
import subprocess
import sys

import pytest
import torch

from vqtool.vqgan.autoencoder.losses import (
    DISCRIMINATOR_LOSSES,
    adaptive_weight,
    generator_loss,
    hinge_discriminator_loss,
    vanilla_discriminator_loss,
)


def test_hinge_is_the_hand_computed_mean():
    real = torch.tensor([2.0, 0.5, -1.0])  # relu(1 - real) = 0, .5, 2
    fake = torch.tensor([-2.0, 0.5])  # relu(1 + fake) = 0, 1.5
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx(0.5 * (2.5 / 3 + 0.75))


def test_hinge_has_no_gradient_beyond_the_margin():
    real = torch.tensor([1.5, 0.0], requires_grad=True)
    fake = torch.tensor([-1.5, 0.0], requires_grad=True)
    hinge_discriminator_loss(real, fake).backward()
    assert real.grad is not None
    assert real.grad.tolist() == [0.0, -0.25]
    assert fake.grad is not None
    assert fake.grad.tolist() == [0.0, 0.25]


def test_vanilla_is_the_halved_cross_entropy():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3)
    entropies = [-math.log(1 / (1 + math.exp(-x))) for x in real.flatten().tolist()]
    entropies += [-math.log(1 - 1 / (1 + math.exp(-x))) for x in fake.flatten().tolist()]
    assert vanilla_discriminator_loss(real, fake).item() == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)


@pytest.mark.parametrize(("name", "at_zero"), [("hinge", 1.0), ("vanilla", math.log(2))])
def test_an_undecided_discriminator_pays_the_known_price(name, at_zero):
    zeros = torch.zeros(4, 1, 2, 2)
    assert DISCRIMINATOR_LOSSES[name](zeros, zeros).item() == pytest.approx(at_zero)


def test_the_generator_wants_high_logits():
    fake = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    loss = generator_loss(fake)
    loss.backward()
    assert loss.item() == -3.0
    assert fake.grad is not None
    torch.testing.assert_close(fake.grad, torch.full((3,), -1 / 3))


# ---- adaptive weight: with loss = sum(a * w), the gradient is a


def losses_with_gradients(nll, generator, weight):
    return (torch.tensor(nll) * weight).sum(), (torch.tensor(generator) * weight).sum()


def test_adaptive_weight_is_the_ratio_of_the_norms():
    weight = torch.ones(2, requires_grad=True)
    nll, generator = losses_with_gradients([3.0, 4.0], [0.0, 2.0], weight)
    assert adaptive_weight(nll, generator, weight).item() == pytest.approx(5 / (2 + 1e-4))


def test_adaptive_weight_of_a_last_convolution_equals_the_hand_computation():
    torch.manual_seed(0)
    last = torch.nn.Conv2d(4, 3, 1, bias=False)
    features, target = torch.randn(2, 4, 5, 5), torch.randn(2, 3, 5, 5)
    images = last(features)
    value = adaptive_weight((images - target).square().mean(), -images.mean(), last.weight)
    with torch.no_grad():  # d mean (Wf - t)^2 / dW = 2/n sum (Wf - t) f', d (-mean Wf) / dW = -1/n sum f
        residual = 2 * (images - target) / images.numel()
        nll_norm = torch.einsum("bohw,bihw->oi", residual, features).norm()
        generator_norm = (features.sum((0, 2, 3)) / images.numel()).repeat(3, 1).norm()
    assert value.item() == pytest.approx((nll_norm / (generator_norm + 1e-4)).item(), rel=1e-5)


@pytest.mark.parametrize(("nll", "generator", "expected"), [([9e3], [0.0], 1e4), ([0.0], [1.0], 0.0)])
def test_adaptive_weight_is_clamped_and_finite_where_a_gradient_vanishes(nll, generator, expected):
    weight = torch.ones(1, requires_grad=True)
    assert adaptive_weight(*losses_with_gradients(nll, generator, weight), weight).item() == expected


def test_adaptive_weight_is_detached_and_leaves_gradients_and_graph_alone():
    weight = torch.ones(2, requires_grad=True)
    nll, generator = losses_with_gradients([3.0, 4.0], [0.0, 2.0], weight)
    value = adaptive_weight(nll, generator, weight)
    assert not value.requires_grad
    assert weight.grad is None
    (nll + value * generator).backward()
    torch.testing.assert_close(weight.grad, torch.tensor([3.0, 4.0 + 2 * value.item()]))


def test_adaptive_weight_reduces_each_gradient_before_its_norm():
    weight = torch.ones(2, requires_grad=True)
    nll, generator = losses_with_gradients([3.0, 4.0], [0.0, 2.0], weight)
    other_rank = iter([torch.tensor([-3.0, 4.0]), torch.tensor([2.0, 0.0])])
    value = adaptive_weight(nll, generator, weight, reduce=lambda gradient: (gradient + next(other_rank)) / 2)
    assert value.item() == pytest.approx(4 / (math.sqrt(2) + 1e-4))


def last_layer_game(dtype):
    """Losses whose gradients at the 192 x 192 pixels are some 1e-8, below float16, and the last layer's weight."""
    torch.manual_seed(0)
    last = torch.nn.Conv2d(4, 3, 1, bias=False).to(dtype)
    images = last(torch.rand(1, 4, 192, 192).to(dtype)).to(torch.promote_types(dtype, torch.float32))
    return (images - 1).square().mean() / 3000, -images.mean() / 1000, last.weight


def test_under_float16_the_adaptive_weight_is_taken_of_scaled_losses():
    scale = torch.amp.GradScaler("cpu", init_scale=2.0**14).scale
    expected = adaptive_weight(*last_layer_game(torch.float64)).item()
    assert 0.5 < expected < 2
    assert adaptive_weight(*last_layer_game(torch.float16)).item() == 0
    assert adaptive_weight(*last_layer_game(torch.float16), scale=scale).item() == pytest.approx(expected, rel=0.01)


def test_scaling_changes_nothing_where_nothing_underflows_also_not_beside_the_small_constant():
    nll, generator, weight = last_layer_game(torch.float32)
    scale = torch.amp.GradScaler("cpu", init_scale=2.0**14).scale
    for share in (1.0, 1e-3, 1e-6):  # the last two norms are less than the 1e-4
        expected = adaptive_weight(nll, share * generator, weight).item()
        assert adaptive_weight(nll, share * generator, weight, scale=scale).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("overflowing", [0, 1])
def test_of_gradients_that_overflow_no_weight_is_told(overflowing):
    weight = torch.ones(2, dtype=torch.float16, requires_grad=True)
    losses = list(losses_with_gradients([3.0, 4.0], [0.0, 2.0], weight.float()))
    losses[overflowing] = losses[overflowing] * 1e4
    scale = torch.amp.GradScaler("cpu", init_scale=16.0).scale
    assert adaptive_weight(*losses, weight, scale=scale).isnan()


def test_the_losses_do_not_bring_lpips_or_torchvision_along():
    program = (
        "import sys, vqtool.vqgan.autoencoder.losses; print([m for m in ('lpips', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
