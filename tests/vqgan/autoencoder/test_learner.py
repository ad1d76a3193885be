"""One training step: one forward for two optimizers, neither of which sees the other's gradient."""

import copy

import pytest
import ranks
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision

from vqtool.vqgan.autoencoder.learner import AutoencoderLearner
from vqtool.vqgan.autoencoder.losses import adaptive_weight, generator_loss, hinge_discriminator_loss
from vqtool.vqgan.data import Batches, normalize
from vqtool.vqgan.data.opening import open_images

GAN = {"disc_start": 0, "disc_channels": 8, "disc_layers": 1}


@pytest.fixture
def learn(tiny):
    """A function from settings to a learner and its batches."""

    def make(fabric=None, **branches):
        config = tiny(**branches)
        images = open_images(config.data)["train"]
        batches = Batches(images, config.train.batch_size, 0, accumulate=config.train.accumulate, flip=False)
        return AutoencoderLearner(fabric or Fabric(accelerator="cpu", devices=1), config), batches

    return make


def gradients_when_stepping(optimizer, module):
    """What the optimizer sees: filled when it steps."""
    seen = {}

    def take(*_):
        seen.update({name: parameter.grad.clone() for name, parameter in module.named_parameters()})

    optimizer.register_step_pre_hook(take)
    return seen


def test_each_optimizer_sees_the_gradient_of_its_own_loss_only(learn):
    learner, batches = learn(loss=GAN)
    for step in range(2):  # a state in which both have moved
        learner.step(step, batches)
    model, critic = copy.deepcopy(learner.model), copy.deepcopy(learner.adversary.network)
    seen = gradients_when_stepping(learner.optimizer.optimizer, learner.model)
    critic_seen = gradients_when_stepping(learner.adversary.optimizer.optimizer, learner.adversary.network)
    learner.step(2, batches)

    images = normalize(batches(2)[0])
    reconstructions, output = model(images)
    nll = (images - reconstructions).abs().mean()
    generator = generator_loss(critic(reconstructions))
    weight = adaptive_weight(nll, generator, model.decoder.conv_out.weight)
    total = nll + output.loss + 0.8 * weight * generator
    expected = torch.autograd.grad(total, list(model.parameters()), retain_graph=True)
    for (name, _), gradient in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(seen[name], gradient, rtol=1e-3, atol=1e-6, msg=name)

    loss = hinge_discriminator_loss(critic(images), critic(reconstructions.detach()))
    expected = torch.autograd.grad(loss, list(critic.parameters()))
    for (name, _), gradient in zip(critic.named_parameters(), expected, strict=True):
        torch.testing.assert_close(critic_seen[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_the_adaptive_weight_of_a_run_in_float16_is_that_of_float32(learn):
    # So light a reconstruction that its gradients at the pixels, 3e-9, are nothing in float16.
    loss = {**GAN, "l1_weight": 1e-5}
    weights = {}
    for name in ("32-true", "16-mixed"):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        precision = MixedPrecision("16-mixed", device="cpu", scaler=scaler) if name == "16-mixed" else Precision()
        learner, batches = learn(Fabric(accelerator="cpu", devices=1, plugins=[precision]), loss=loss)
        weights[name] = learner.step(0, batches)["gan/weight"].item()
    assert weights["32-true"] > 0
    assert weights["16-mixed"] == pytest.approx(weights["32-true"], rel=0.05)


def test_the_adversary_joins_in_under_bfloat16(learn):
    learner, batches = learn(Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"), loss=GAN)
    exact, _ = learn(loss=GAN)
    weights = [each.step(0, batches)["gan/weight"].item() for each in (learner, exact)]
    assert weights[0] == pytest.approx(weights[1], rel=0.1)


def test_before_its_start_nothing_of_the_discriminator_is_computed(learn, monkeypatch):
    learner, batches = learn(loss={**GAN, "disc_start": 2})

    def forbidden(*_, **__):
        raise AssertionError("computed too early")

    critic = learner.adversary.discriminator
    before = copy.deepcopy(critic.state_dict())
    with monkeypatch.context() as patch:
        patch.setattr("vqtool.vqgan.autoencoder.objective.adaptive_weight", forbidden)
        patch.setattr(type(critic.module), "forward", forbidden)
        for step in range(2):
            assert not any(name.startswith("gan/") for name in learner.step(step, batches))
    assert all(torch.equal(before[name], value) for name, value in critic.state_dict().items())
    assert learner.step(2, batches).keys() >= {"gan/generator", "gan/discriminator", "gan/weight"}


def test_one_forward_of_the_autoencoder_serves_both_optimizers(learn):
    learner, batches = learn(loss=GAN)
    calls = []
    learner.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    for step in range(3):
        learner.step(step, batches)
    assert len(calls) == 3


@pytest.mark.parametrize("spec", ["standard", "ema", "entropy"])
def test_micro_batches_add_up_to_the_whole_batch(learn, spec):
    # Entropy's mean assignment is taken per micro-batch; its weight is left out of the comparison.
    quantizer = {"spec": spec, "entropy": {"kl_weight": 0.0}}
    whole, batches = learn(quantizer=quantizer)
    split, parts = learn(quantizer=quantizer, train={"accumulate": 2})
    for step in range(2):
        whole_losses, split_losses = whole.step(step, batches), split.step(step, parts)
    torch.testing.assert_close(split_losses["loss/nll"], whole_losses["loss/nll"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(split.model.quantize.codebook, whole.model.quantize.codebook, rtol=1e-2, atol=1e-4)


def test_kmeans_starts_the_codebook_on_the_latents(learn):
    uniform, batches = learn()
    started, _ = learn(quantizer={"init": "kmeans", "kmeans_batches": 3})
    started.start_codebook(batches)
    images = normalize(batches(0)[0])
    distances = [learner.model.encode(images).losses["commitment"].item() for learner in (uniform, started)]
    assert distances[1] < distances[0] / 2
    assert started.model.encode(images).indices.unique().numel() > 4


def codes_from_kmeans(learn, **branches):
    learner, batches = learn(quantizer={"init": "kmeans", "kmeans_batches": 3}, **branches)
    learner.start_codebook(batches)
    return learner.model.quantize.codebook.detach()


#: Latents of order one in batches of another size differ by some 1e-7, and no token lies so near a border.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("accumulate", [2, 4])
def test_kmeans_sees_the_same_images_in_micro_batches(learn, accumulate):
    whole, parts = codes_from_kmeans(learn), codes_from_kmeans(learn, train={"accumulate": accumulate})
    torch.testing.assert_close(parts, whole, **ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_kmeans_starts_every_rank_on_the_codes_of_a_single_process(learn, tiny, tmp_path, accumulate):
    single = codes_from_kmeans(learn)
    config = tiny(quantizer={"init": "kmeans", "kmeans_batches": 3}, train={"accumulate": accumulate})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    torch.multiprocessing.spawn(ranks.start_from_kmeans, args=(tmp_path,), nprocs=ranks.RANKS)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(ranks.RANKS))
    assert torch.equal(first, second)
    assert first.std() > 0.01
    torch.testing.assert_close(first, single, **ROUNDING)


def test_the_learning_rate_reaches_both_optimizers(learn):
    learner, batches = learn(loss=GAN, optimizer={"lr": 2e-3, "warmup_steps": 4})
    learner.step(1, batches)
    for optimizer in (learner.optimizer, learner.adversary.optimizer):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_the_number_of_trained_parameters_leaves_averaged_codes_out(learn):
    standard, _ = learn()
    ema, _ = learn(quantizer={"spec": "ema"})
    assert standard.parameters_trained() - ema.parameters_trained() == 16 * 8
