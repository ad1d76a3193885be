import pytest
import torch

from vqtool.vqgan.autoencoder.discriminator import NLayerDiscriminator
from vqtool.vqgan.autoencoder.losses import DISCRIMINATOR_LOSSES, adaptive_weight
from vqtool.vqgan.autoencoder.objective import Adversary, LabelReconstruction, Reconstruction, reconstruction_loss
from vqtool.vqgan.autoencoder.settings import LossSettings, build_autoencoder_config


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(2, 3, 16, 16) * 2 - 1


class Decoder(torch.nn.Module):
    """As much of a decoder as the game needs: a last layer."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Conv2d(3, 3, 1)

    def forward(self, images):
        return self.last(images)


@pytest.fixture
def game(images):
    """Build an adversary, a decoder and its reconstructions."""

    def build(wrap=lambda module: module, reduce=None, scale=None, **settings):
        torch.manual_seed(1)
        discriminator, decoder = NLayerDiscriminator(ndf=8, n_layers=1), Decoder()
        adversary = Adversary(wrap(discriminator), None, LossSettings(**settings), reduce, scale)
        return adversary, decoder, decoder(images)

    return build


# ---- reconstruction


@pytest.mark.parametrize(("l1", "l2"), [(1.0, 0.0), (0.0, 2.0), (0.5, 3.0)])
def test_the_reconstruction_loss_is_the_weighted_sum_of_its_parts(images, l1, l2):
    other = torch.zeros_like(images)
    nll, parts = Reconstruction(LossSettings(l1_weight=l1, l2_weight=l2))(images, other)
    differences = images.double().flatten()
    expected = {"l1": differences.abs().mean().item(), "l2": (differences**2).mean().item()}
    assert nll.item() == pytest.approx(l1 * expected["l1"] + l2 * expected["l2"], rel=1e-5)
    assert set(parts) == {name for name, weight in (("l1", l1), ("l2", l2)) if weight}
    for name, part in parts.items():
        assert part.item() == pytest.approx(expected[name], rel=1e-5)


def test_without_a_perceptual_part_there_is_no_network():
    reconstruction = Reconstruction(LossSettings(perceptual="none"))
    assert list(reconstruction.children()) == list(reconstruction.parameters()) == []


def test_the_reconstruction_loss_reaches_the_reconstructions(images):
    reconstructions = torch.zeros_like(images).requires_grad_()
    Reconstruction(LossSettings())(images, reconstructions)[0].backward()
    torch.testing.assert_close(reconstructions.grad, -images.sign() / images.numel())


@pytest.fixture
def labelled():
    """One-hot maps of 5 labels and logits for them."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 5, (2, 8, 8), generator=generator)
    return torch.nn.functional.one_hot(ids, 5).permute(0, 3, 1, 2).float(), torch.randn(2, 5, 8, 8, generator=generator)


def test_the_loss_of_labels_is_the_mean_cross_entropy_of_every_element(labelled):
    maps, logits = labelled
    nll, parts = LabelReconstruction()(maps, logits)
    p = torch.sigmoid(logits.double())
    expected = -torch.where(maps == 1, p.log(), (1 - p).log()).mean()
    assert nll.item() == pytest.approx(expected.item(), rel=1e-5)
    assert {name: part.item() for name, part in parts.items()} == {"bce": nll.item()}


def test_the_loss_of_labels_is_taken_in_full_precision(labelled):
    maps, logits = labelled
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nll, _ = LabelReconstruction()(maps, logits.bfloat16())
    assert nll.dtype == torch.float32
    assert nll.item() == pytest.approx(LabelReconstruction()(maps, logits)[0].item(), rel=1e-2)


@pytest.mark.parametrize(
    ("view", "loss"), [("image", Reconstruction), ("depth", Reconstruction), ("segmentation:5", LabelReconstruction)]
)
def test_the_view_decides_which_loss_reconstructions_have(view, loss):
    chosen = reconstruction_loss(build_autoencoder_config({"data": {"view": view}, "loss": {"l1_weight": 3}}))
    assert type(chosen) is loss
    assert getattr(chosen, "settings", LossSettings(l1_weight=3)) == LossSettings(l1_weight=3)


# ---- the generator's side


@pytest.mark.parametrize("adaptive", [True, False])
def test_the_generators_side_gives_the_discriminator_no_gradient_and_the_decoder_its_own(game, images, adaptive):
    adversary, decoder, reconstructions = game(disc_adaptive=adaptive)
    loss, _ = adversary.generator_side((reconstructions - images).abs().mean(), reconstructions, decoder.last.weight)
    loss.backward()
    assert all(parameter.grad is None for parameter in adversary.discriminator.parameters())
    assert decoder.last.weight.grad.abs().sum() > 0
    assert all(parameter.requires_grad for parameter in adversary.discriminator.parameters())


@pytest.mark.parametrize(("adaptive", "share"), [(False, 1.0), (True, None)])
def test_the_generators_loss_is_weighed_by_the_settings_and_the_balance(game, images, adaptive, share):
    adversary, decoder, reconstructions = game(disc_adaptive=adaptive, disc_weight=0.3)
    nll = (reconstructions - images).abs().mean()
    loss, parts = adversary.generator_side(nll, reconstructions, decoder.last.weight)
    generator = -adversary.discriminator(reconstructions).mean()
    share = adaptive_weight(nll, generator, decoder.last.weight).item() if share is None else share
    assert parts["generator"].item() == pytest.approx(generator.item(), rel=1e-4)
    assert parts["weight"].item() == pytest.approx(share, rel=1e-4)
    assert loss.item() == pytest.approx(0.3 * share * generator.item(), rel=1e-4)


def test_the_balance_is_taken_after_the_mean_over_ranks(game, images):
    weights = []
    for reduce in (None, torch.zeros_like):
        adversary, decoder, reconstructions = game(reduce=reduce)
        nll = (reconstructions - images).abs().mean()
        weights.append(adversary.generator_side(nll, reconstructions, decoder.last.weight)[1]["weight"].item())
    assert weights[0] > 0
    assert weights[1] == 0


def test_the_generators_side_goes_around_the_wrapper_for_several_devices(game, images):
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, images):
            raise AssertionError("this forward would wait for gradients that never come")

    adversary, decoder, reconstructions = game(wrap=Wrapper)
    loss, _ = adversary.generator_side((reconstructions - images).abs().mean(), reconstructions, decoder.last.weight)
    assert loss.isfinite()


class Float16(torch.nn.Module):
    """A discriminator whose logits are float16, as under autocast."""

    def __init__(self, module):
        super().__init__()
        self.inside = module

    def forward(self, images):
        return self.inside(images).half()


def test_the_first_scale_of_a_scaler_does_not_overflow_the_losses_of_float16_logits(game, images):
    scaler = torch.amp.GradScaler("cpu")
    assert scaler.scale(torch.ones(())).item() > torch.finfo(torch.float16).max
    adversary, decoder, reconstructions = game(wrap=Float16, scale=scaler.scale)
    nll = (reconstructions - images).abs().mean()
    loss, parts = adversary.generator_side(nll, reconstructions, decoder.last.weight)
    assert parts["weight"] > 0
    scaler.scale(loss + adversary.discriminator_side(images, reconstructions)[0]).backward()
    assert decoder.last.weight.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in adversary.discriminator.parameters())


def test_a_step_whose_scaled_gradients_overflow_is_logged_as_weight_zero_and_passed_over(game, images):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    adversary, decoder, reconstructions = game(scale=scaler.scale)
    optimizer = torch.optim.SGD(decoder.parameters(), lr=1.0)
    before = decoder.last.weight.detach().clone()
    nll = (reconstructions - images).abs().mean()
    loss, parts = adversary.generator_side(nll * 1e-6, reconstructions, decoder.last.weight)  # its own scaled is finite
    assert parts["weight"] == loss == 0
    scaler.scale(nll * 1e-6 + loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(decoder.last.weight, before)
    assert scaler.get_scale() == 2.0**126


# ---- the discriminator's side


@pytest.mark.parametrize("form", DISCRIMINATOR_LOSSES)
def test_the_discriminators_side_is_the_chosen_loss_of_its_logits(game, images, form):
    adversary, _, reconstructions = game(disc_loss=form)
    loss, parts = adversary.discriminator_side(images, reconstructions)
    real, fake = adversary.discriminator(images), adversary.discriminator(reconstructions)
    assert loss.item() == pytest.approx(DISCRIMINATOR_LOSSES[form](real, fake).item(), rel=1e-5)
    assert parts["discriminator"].item() == loss.item()
    assert parts["logits_real"].item() == pytest.approx(real.mean().item(), rel=1e-4)
    assert parts["logits_fake"].item() == pytest.approx(fake.mean().item(), rel=1e-4)


def test_the_discriminators_side_leaves_nothing_on_the_way_of_the_reconstructions(game, images):
    adversary, decoder, reconstructions = game()
    reconstructions.retain_grad()
    adversary.discriminator_side(images, reconstructions)[0].backward()
    assert reconstructions.grad is None
    assert decoder.last.weight.grad is None
    assert all(parameter.grad is not None for parameter in adversary.discriminator.parameters())
