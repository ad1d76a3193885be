import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from references import codebook_gradient, ema_step, entropies, kl_from_uniform, mean_squared_error, nearest
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vqtool.vqgan.quantizers import (
    QUANTIZERS,
    DeadCodeReset,
    EMAQuantizer,
    EntropyQuantizer,
    GumbelQuantizer,
    StandardQuantizer,
    chunks,
)
from vqtool.vqgan.quantizers.base import to_map, to_tokens

K, D = 8, 4
#: The quantizers that assign the nearest code.
NEAREST = [name for name in QUANTIZERS if name != "gumbel"]
#: Those that work on tokens x codes in slices.
SLICED = ["entropy", "gumbel"]


def spread_codes(quantizer):
    """Codes as far apart as the latents are, so that many of them are used."""
    quantizer.overwrite(torch.arange(quantizer.codebook_size), torch.randn(quantizer.codebook_size, quantizer.dim))
    return quantizer


def make(name, **settings):
    torch.manual_seed(0)
    return spread_codes(QUANTIZERS[name](K, D, **settings))


def images_of_latents(seed=1, shape=(2, D, 3, 5)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


# ---- every quantizer


def test_tokens_are_row_major_and_come_back_to_their_place():
    latents = torch.arange(2 * D * 3 * 5).float().view(2, D, 3, 5)
    tokens = to_tokens(latents)
    assert torch.equal(tokens[1 * 15 + 2 * 5 + 3], latents[1, :, 2, 3])
    assert torch.equal(to_map(tokens, latents.shape), latents)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_output_has_the_promised_shapes_and_types(name, training):
    output = make(name).train(training)(images_of_latents())
    assert output.quantized.shape == (2, D, 3, 5)
    assert output.quantized.dtype == torch.float32
    assert output.indices.shape == (2, 3, 5)
    assert output.indices.dtype == torch.int64
    assert int(output.indices.min()) >= 0
    assert int(output.indices.max()) < K
    for loss in (output.loss, *output.losses.values()):
        assert loss.shape == ()
        assert loss.isfinite()


@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_codes_of_the_indices_are_what_evaluation_hands_over(name):
    quantizer = make(name).eval()
    output = quantizer(images_of_latents())
    assert len(output.indices.unique()) > 2
    torch.testing.assert_close(quantizer.lookup(output.indices), output.quantized, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_overwritten_codes_stand_where_they_were_put_and_the_others_where_they_were(name):
    quantizer = make(name)
    before, vectors = quantizer.codebook.clone(), torch.randn(2, D)
    quantizer.overwrite(torch.tensor([5, 2]), vectors)
    assert torch.equal(quantizer.codebook[[5, 2]], vectors)
    others = [0, 1, 3, 4, 6, 7]
    assert torch.equal(quantizer.codebook[others], before[others])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_half_precision_latents_are_quantized_in_float32(name, training):
    quantizer = make(name).train(training)
    halves = images_of_latents().detach().bfloat16()
    torch.manual_seed(2)
    expected = quantizer(halves.float())
    torch.manual_seed(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = quantizer(halves)
    assert torch.equal(output.indices, expected.indices)
    assert torch.equal(output.quantized, expected.quantized)
    assert output.quantized.dtype == output.loss.dtype == torch.float32
    assert torch.equal(output.loss, expected.loss)


HALVES = [torch.bfloat16, torch.float16]


def step_and_gradients(quantizer, latents):
    """What a step hands over and leaves behind, by name; the same draws at each call."""
    latents = latents.detach().requires_grad_()
    torch.manual_seed(2)
    output = quantizer(latents)
    weights = torch.arange(latents.numel()).view(latents.shape) % 9 - 4.0  # exact in every dtype
    (output.loss + (output.quantized * weights.to(output.quantized.dtype)).sum()).backward()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in quantizer.named_parameters()}
    quantizer.end_step()
    return output._asdict() | {"latents": latents.grad} | gradients | quantizer.state_dict()


@pytest.fixture(params=["one block", "slices"])
def blocks_or_one(request):
    if request.param == "slices":
        request.getfixturevalue("blocks_of_three_tokens")


@pytest.mark.usefixtures("blocks_or_one")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_in_half_precision_a_quantizer_rounds_what_it_hands_over_and_nothing_before(name, dtype, training):
    settings = {"temperature": 1.0} if name == "entropy" else {}
    half = make(name, **settings).train(training).to(dtype)
    same = QUANTIZERS[name](K, D, **settings).train(training)
    same.load_state_dict(half.state_dict())
    latents = images_of_latents().to(dtype)
    actual, expected = step_and_gradients(half, latents), step_and_gradients(same, latents.float())
    assert actual["quantized"].dtype == dtype
    assert actual["loss"].dtype == torch.float32
    for key, value in expected.items():
        for mine, exact in zip(tree_leaves(actual[key]), tree_leaves(value), strict=True):
            assert torch.equal(mine, exact.to(mine.dtype)), key


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_float32_quantizer_takes_half_precision_latents_without_autocast(name, dtype):
    output = make(name)(images_of_latents().to(dtype))
    assert output.quantized.dtype == output.loss.dtype == torch.float32


@pytest.mark.usefixtures("blocks_or_one")
@pytest.mark.parametrize("name", QUANTIZERS)
def test_in_double_precision_a_quantizer_loses_no_digits(name):
    latents = images_of_latents().detach()
    double = step_and_gradients(make(name).double(), latents.double())
    single = step_and_gradients(make(name), latents)
    for key, value in double.items():
        for mine, coarse in zip(tree_leaves(value), tree_leaves(single[key]), strict=True):
            if mine.is_floating_point():
                assert mine.dtype == torch.float64, key
                if name != "gumbel":  # another dtype, other draws
                    torch.testing.assert_close(mine.float(), coarse, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("blocks_or_one")
def test_the_double_precision_entropy_loss_equals_the_dense_one_in_all_digits():
    quantizer = make("entropy", temperature=0.5, entropy_weight=0.7, kl_weight=0.4).double()
    latents = images_of_latents().detach().double().requires_grad_()
    actual = quantizer(latents).loss
    expected = twin_loss(latents, quantizer.codebook, quantizer)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    wanted = torch.autograd.grad(expected, [latents, quantizer.codebook])
    torch.testing.assert_close(gradients(quantizer, latents, actual), wanted, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("settings", [{}, {"straight_through": False}])
@pytest.mark.parametrize("training", [True, False])
def test_double_precision_gumbel_gradients_equal_the_dense_ones_in_all_digits(monkeypatch, training, settings):
    quantizer = make("gumbel", kl_weight=0.5, **settings).train(training).double()
    latents = images_of_latents(shape=(1, D, 2, 3)).detach().double().requires_grad_()
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.fill_(1.0))  # draws depend on the slices
    passes = []
    for block in (chunks.BLOCK, 6 * K - 1):  # one block, then five tokens and one
        monkeypatch.setattr(chunks, "BLOCK", block)
        output = quantizer(latents)
        passes.append(gradients(quantizer, latents, output.loss + output.quantized.square().sum()))
    torch.testing.assert_close(passes[1], passes[0], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_averages_of_a_half_precision_ema_keep_every_small_update(dtype):
    half, single = make("ema").to(dtype), make("ema")
    for seed in range(50):
        latents = images_of_latents(seed).detach().to(dtype)
        for quantizer in (half, single):
            quantizer(latents.to(quantizer.codebook.dtype))
            quantizer.end_step()
    for name in ("cluster_size", "embed_avg"):
        average = getattr(half.embedding, name)
        assert average.dtype == torch.float32
        torch.testing.assert_close(average, getattr(single.embedding, name), rtol=0.1, atol=0.1)
    assert half.codebook.dtype == dtype


def test_a_cast_there_and_back_costs_the_averages_no_digit():
    quantizer = make("ema")
    before = {name: value.clone() for name, value in quantizer.embedding.state_dict().items() if name != "weight"}
    for there in (*HALVES, torch.float64):
        quantizer.to(there).float()
        for name, value in before.items():
            assert torch.equal(getattr(quantizer.embedding, name), value)
    assert all(value.is_meta for value in quantizer.to("meta").state_dict().values())


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_are_overwritten_and_dead_ones_reset_in_every_dtype(name, dtype):
    quantizer = make(name).to(dtype)
    vectors = torch.randn(2, D)
    quantizer.overwrite(torch.tensor([5, 2]), vectors)
    assert torch.equal(quantizer.codebook[[5, 2]], vectors.to(dtype))
    reset = DeadCodeReset(quantizer, every=1, threshold=0.99)
    quantizer(images_of_latents(shape=(1, D, 1, 2)).to(dtype))
    quantizer.end_step()
    assert len(reset.step()) > 0
    assert all(value.isfinite().all() for value in quantizer.state_dict().values())


@pytest.mark.parametrize("name", NEAREST)
def test_a_token_gets_its_nearest_code_and_hands_its_gradient_straight_through(name):
    quantizer, latents = make(name), images_of_latents()
    output = quantizer(latents)
    tokens = to_tokens(latents.detach())
    assert output.indices.flatten().tolist() == nearest(tokens, quantizer.codebook)
    codes = quantizer.codebook[output.indices.flatten()]
    torch.testing.assert_close(to_tokens(output.quantized), codes, rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(output.quantized.sum(), latents)
    assert torch.equal(gradient, torch.ones_like(latents))


# ---- standard


@pytest.mark.parametrize("legacy", [False, True])
def test_the_standard_loss_is_equation_3_of_the_paper(legacy):
    quantizer, latents = make("standard", commitment_weight=0.3, legacy=legacy), images_of_latents()
    output = quantizer(latents)
    distance = mean_squared_error(to_tokens(latents), quantizer.codebook[output.indices.flatten()])
    assert output.losses["codebook"].item() == pytest.approx(distance, rel=1e-5)
    assert output.losses["commitment"].item() == pytest.approx(distance, rel=1e-5)
    assert output.loss.item() == pytest.approx(1.3 * distance, rel=1e-5)


@pytest.mark.parametrize(("legacy", "on_codebook", "on_latents"), [(False, 1.0, 0.3), (True, 0.3, 1.0)])
def test_beta_weighs_the_commitment_and_in_the_legacy_order_the_codebook(legacy, on_codebook, on_latents):
    quantizer, latents = make("standard", commitment_weight=0.3, legacy=legacy), images_of_latents()
    output = quantizer(latents)
    output.loss.backward()
    tokens = to_tokens(latents.detach())
    expected = on_codebook * codebook_gradient(tokens, quantizer.codebook.detach())
    torch.testing.assert_close(quantizer.codebook.grad, expected.float(), rtol=1e-4, atol=1e-7)
    residual = tokens - quantizer.codebook.detach()[output.indices.flatten()]
    torch.testing.assert_close(
        to_tokens(latents.grad), on_latents * 2 / tokens.numel() * residual, rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_a_code_without_hits_has_no_gradient_at_all(legacy):
    quantizer = make("standard", legacy=legacy)
    quantizer.overwrite(torch.tensor([3]), torch.full((1, D), 90.0))
    output = quantizer(images_of_latents())
    (output.loss + output.quantized.square().sum()).backward()
    hits = torch.bincount(output.indices.flatten(), minlength=K)
    rows = quantizer.codebook.grad.abs().sum(1)
    assert hits[3] == 0
    assert torch.equal(rows > 0, hits > 0)


def test_codes_start_within_one_over_k():
    codes = StandardQuantizer(64, 32).codebook
    assert 0.9 / 64 < codes.abs().max() <= 1 / 64


# ---- ema


def test_moving_averages_equal_the_loop_and_smoothing_is_not_stored():
    quantizer = make("ema", decay=0.8, eps=0.1)  # eps large enough to be seen
    twin = (quantizer.codebook.double(), torch.ones(K).double(), quantizer.codebook.double())
    for step in range(5):
        latents = images_of_latents(seed=step)
        quantizer(latents)
        quantizer.end_step()
        twin = ema_step(*twin, to_tokens(latents.detach()), decay=0.8, eps=0.1)
        book = quantizer.embedding
        for fast, slow in zip((book.weight, book.cluster_size, book.embed_avg), twin, strict=True):
            torch.testing.assert_close(fast, slow.float(), rtol=1e-5, atol=1e-5)


def test_the_ema_loss_is_the_commitment_and_reaches_the_latents_only():
    quantizer, latents = make("ema", commitment_weight=0.3), images_of_latents()
    output = quantizer(latents)
    distance = mean_squared_error(to_tokens(latents), quantizer.codebook[output.indices.flatten()])
    assert output.loss.item() == pytest.approx(0.3 * distance, rel=1e-5)
    output.loss.backward()
    assert latents.grad.abs().sum() > 0
    assert list(quantizer.parameters()) == []


def test_no_code_explodes_in_the_first_steps_and_an_unused_one_keeps_its_place():
    torch.manual_seed(0)
    quantizer = EMAQuantizer(512, D)  # far more codes than tokens
    first, used = quantizer.codebook.clone(), torch.zeros(512, dtype=torch.bool)
    for step in range(20):
        used[quantizer(images_of_latents(seed=step)).indices.flatten()] = True
        quantizer.end_step()
        assert quantizer.codebook.norm(dim=1).max() < 6
    assert 0 < used.sum() < 512
    torch.testing.assert_close(quantizer.codebook[~used], first[~used], rtol=1e-3, atol=0)


def test_two_micro_batches_and_one_end_step_are_one_large_batch():
    whole, parts = make("ema"), make("ema")
    latents = images_of_latents(shape=(6, D, 3, 5))
    whole(latents)
    for part in latents.split([4, 2]):
        parts(part)
    for quantizer in (whole, parts):
        quantizer.end_step()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value)
    assert not torch.equal(whole.codebook, make("ema").codebook)


def test_forward_alone_moves_nothing_and_evaluation_counts_nothing():
    quantizer = make("ema")
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(images_of_latents())
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
    quantizer = make("ema").eval()
    quantizer(images_of_latents())
    quantizer.end_step()
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_an_overwritten_code_weighs_as_much_as_the_average_one():
    quantizer = make("ema", decay=0.5)
    quantizer(images_of_latents())
    quantizer.end_step()
    mean = quantizer.embedding.cluster_size.mean().item()
    quantizer.overwrite(torch.tensor([1, 6]), torch.ones(2, D))
    assert quantizer.embedding.cluster_size[[1, 6]].tolist() == pytest.approx([mean, mean])
    torch.testing.assert_close(quantizer.embedding.embed_avg[[1, 6]], torch.full((2, D), mean))


def test_the_ema_state_has_the_names_of_taming():
    assert set(make("ema").state_dict()) == {f"embedding.{name}" for name in ("weight", "cluster_size", "embed_avg")}


# ---- gumbel


def test_evaluation_takes_the_largest_logit_every_time():
    quantizer, latents = make("gumbel").eval(), images_of_latents()
    first, second = quantizer(latents), quantizer(latents)
    assert torch.equal(first.quantized, second.quantized)
    assert torch.equal(first.indices, F.conv2d(latents, quantizer.proj.weight, quantizer.proj.bias).argmax(1))


def test_training_draws_anew_at_every_call_and_hands_over_what_it_drew():
    quantizer, latents = make("gumbel"), images_of_latents()
    first, second = quantizer(latents), quantizer(latents)
    assert not torch.equal(first.indices, second.indices)
    torch.testing.assert_close(quantizer.lookup(first.indices), first.quantized, rtol=0, atol=1e-6)


def test_draws_follow_the_softmax_of_the_logits():
    quantizer = GumbelQuantizer(3, 2)
    torch.manual_seed(0)
    torch.nn.init.zeros_(quantizer.proj.weight)
    quantizer.proj.bias.data = torch.tensor([0.5, 0.3, 0.2]).log()
    shares = torch.bincount(quantizer(torch.zeros(1, 2, 100, 100)).indices.flatten()) / 10_000
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.02)


def test_without_straight_through_training_hands_over_a_blend_of_codes():
    quantizer, latents = make("gumbel", straight_through=False), images_of_latents()
    output = quantizer(latents)
    distance = (quantizer.lookup(output.indices) - output.quantized).norm(dim=1)
    assert distance.min() > 1e-4


@pytest.mark.parametrize("straight_through", [True, False])
def test_the_reconstruction_teaches_latents_logits_and_codes(straight_through):
    quantizer, latents = make("gumbel", straight_through=straight_through), images_of_latents()
    quantizer(latents).quantized.square().sum().backward()
    for leaf in (latents, quantizer.proj.weight, quantizer.proj.bias, quantizer.embed.weight):
        assert leaf.grad.abs().sum() > 0


def test_the_temperature_is_a_half_cosine_of_the_optimizer_steps():
    quantizer = make("gumbel", temperature_start=2.0, temperature_end=0.5, temperature_steps=8)
    seen = []
    for _ in range(11):
        seen.append(quantizer.temperature.item())
        quantizer(images_of_latents())  # a forward is not a step
        quantizer.end_step()
    expected = [0.5 + 1.5 * (1 + math.cos(math.pi * min(step, 8) / 8)) / 2 for step in range(11)]
    assert seen == pytest.approx(expected)


def test_the_weight_of_the_kl_rises_linearly_and_then_stays():
    quantizer = make("gumbel", kl_weight=0.4, kl_warmup_steps=4)
    seen = []
    for _ in range(6):
        output = quantizer(images_of_latents())
        seen.append((output.loss / output.losses["kl"]).item())
        quantizer.end_step()
    assert seen == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert make("gumbel", kl_weight=0.4).kl_weight.item() == pytest.approx(0.4)


def test_the_schedules_go_on_from_a_checkpoint():
    trained, fresh = (make("gumbel", temperature_steps=10, kl_warmup_steps=10) for _ in range(2))
    for _ in range(4):
        trained.end_step()
    assert fresh.temperature != trained.temperature
    fresh.load_state_dict(trained.state_dict())
    assert fresh.temperature == trained.temperature
    assert fresh.kl_weight == trained.kl_weight > 0


def test_the_gumbel_state_has_the_names_of_taming_and_nothing_of_size_k_times_k():
    quantizer = GumbelQuantizer(64, 4)
    assert set(quantizer.state_dict()) == {"proj.weight", "proj.bias", "embed.weight", "updates"}
    assert sum(parameter.numel() for parameter in quantizer.parameters()) == 64 * 4 + 64 + 64 * 4


def test_weights_without_the_schedules_are_loaded_and_the_schedules_stay_where_they_are():
    trained, other = make("gumbel"), GumbelQuantizer(K, D)
    trained.end_step()
    weights = {name: value for name, value in other.state_dict().items() if name != "updates"}
    assert set(weights) == {"proj.weight", "proj.bias", "embed.weight"}  # of taming-transformers
    trained.load_state_dict(weights)
    assert torch.equal(trained.codebook, other.codebook)
    assert trained.updates == 1
    torch.nn.Sequential(trained).load_state_dict({f"0.{name}": value for name, value in weights.items()})
    for name in weights:
        with pytest.raises(RuntimeError, match=name):
            trained.load_state_dict({key: value for key, value in weights.items() if key != name})


def test_the_kl_is_the_mean_over_tokens_of_the_loop():
    quantizer, latents = make("gumbel", kl_weight=0.5), images_of_latents()
    quantizer.proj.weight.data *= 5
    output = quantizer(latents)
    expected = kl_from_uniform(to_tokens(F.conv2d(latents, quantizer.proj.weight, quantizer.proj.bias)))
    assert expected > 0.1
    assert output.losses["kl"].item() == pytest.approx(expected, rel=1e-5)
    assert output.loss.item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_the_kl_of_uniform_logits_is_zero_and_of_sure_ones_the_log_of_k():
    quantizer = make("gumbel")
    torch.nn.init.zeros_(quantizer.proj.weight)
    torch.nn.init.zeros_(quantizer.proj.bias)
    assert quantizer(images_of_latents()).losses["kl"].item() == pytest.approx(0, abs=1e-6)
    quantizer.proj.bias.data[2] = 100
    assert quantizer(images_of_latents()).losses["kl"].item() == pytest.approx(math.log(K), rel=1e-5)


def test_an_overwritten_code_is_chosen_like_its_nearest_neighbour():
    quantizer = make("gumbel")
    quantizer.proj.bias.data[5] = -100.0  # never drawn
    quantizer.overwrite(torch.tensor([5]), quantizer.codebook[3:4] + 0.01)
    assert torch.equal(quantizer.proj.weight[5], quantizer.proj.weight[3])
    assert quantizer.proj.bias[5] == quantizer.proj.bias[3]


# ---- entropy


def twin_loss(latents, codebook, quantizer):
    """The whole loss, dense, in the dtype of what it is given."""
    tokens = to_tokens(latents)
    codes = codebook[nearest(tokens, codebook)]
    each, mean = entropies(tokens, codebook, quantizer.settings.temperature)
    return (
        (codes - tokens.detach()).square().mean()
        + quantizer.settings.commitment_weight * (codes.detach() - tokens).square().mean()
        + quantizer.settings.entropy_weight * each
        - quantizer.settings.kl_weight * mean
    )


@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_the_entropy_loss_and_its_gradients_equal_the_dense_ones(temperature):
    quantizer = make("entropy", temperature=temperature, entropy_weight=0.7, kl_weight=0.4)
    latents = images_of_latents()
    output = quantizer(latents)
    output.loss.backward()
    exact = [tensor.detach().double().requires_grad_() for tensor in (latents, quantizer.codebook)]
    expected = twin_loss(*exact, quantizer)
    expected.backward()
    torch.testing.assert_close(output.loss, expected.float(), rtol=1e-5, atol=1e-5)
    for fast, slow in zip((latents.grad, quantizer.codebook.grad), exact, strict=True):
        torch.testing.assert_close(fast, slow.grad.float(), rtol=1e-3, atol=1e-5)


def test_the_parts_of_the_entropy_loss_are_named_and_weighed():
    quantizer = make("entropy", temperature=1.0, entropy_weight=0.7, kl_weight=0.4)
    latents = images_of_latents()
    output = quantizer(latents)
    each, mean = entropies(to_tokens(latents), quantizer.codebook, 1.0)
    assert output.losses["entropy"].item() == pytest.approx(each.item(), rel=1e-5)
    assert output.losses["kl"].item() == pytest.approx(math.log(K) - mean.item(), rel=1e-4)
    standard = StandardQuantizer.weighted(quantizer, output.losses)
    assert output.loss.item() == pytest.approx((standard + 0.7 * each - 0.4 * mean).item(), rel=1e-5)


def test_a_code_out_of_reach_leaves_all_gradients_finite():
    quantizer, latents = make("entropy"), images_of_latents()
    quantizer.overwrite(torch.tensor([3]), torch.full((1, D), 90.0))  # its probability underflows to zero
    quantizer(latents).loss.backward()
    assert latents.grad.isfinite().all()
    assert quantizer.codebook.grad.isfinite().all()
    assert quantizer.codebook.grad[3].abs().sum() == 0


# ---- tokens x codes in slices


@pytest.fixture
def blocks_of_three_tokens(monkeypatch):
    monkeypatch.setattr(chunks, "BLOCK", 3 * K)


def gradients(quantizer, latents, loss):
    return torch.autograd.grad(loss, [latents, *quantizer.parameters()])


def test_the_entropy_loss_does_not_depend_on_the_slices(request):
    quantizer, latents = make("entropy", temperature=0.5), images_of_latents(shape=(2, D, 4, 5))
    whole = quantizer(latents)
    expected = gradients(quantizer, latents, whole.loss)
    request.getfixturevalue("blocks_of_three_tokens")
    sliced = quantizer(latents)
    torch.testing.assert_close(sliced.loss, whole.loss)
    torch.testing.assert_close(gradients(quantizer, latents, sliced.loss), expected)


@pytest.mark.parametrize("straight_through", [True, False])
def test_gumbel_in_slices_is_what_the_slices_give_in_turn(request, straight_through):
    quantizer = make("gumbel", kl_weight=0.5, straight_through=straight_through)
    latents, target = images_of_latents(shape=(20, D, 1, 1)), torch.randn(20, D, 1, 1)
    torch.manual_seed(5)
    parts = [(len(part), quantizer(part)) for part in latents.split(3)]
    quantized = torch.cat([part.quantized for _, part in parts])
    loss = sum(count * part.loss for count, part in parts) / 20
    expected = gradients(quantizer, latents, loss + F.mse_loss(quantized, target))
    request.getfixturevalue("blocks_of_three_tokens")
    torch.manual_seed(5)
    output = quantizer(latents)
    assert torch.equal(output.quantized, quantized)
    torch.testing.assert_close(output.loss, loss)
    # The backward pass draws again what the forward pass drew, whatever has been drawn between them.
    torch.manual_seed(6)
    actual = gradients(quantizer, latents, output.loss + F.mse_loss(output.quantized, target))
    torch.testing.assert_close(actual, expected)


def kept_for_the_backward_pass(quantizer, latents):
    """Number of elements."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda x: x):
        quantizer(latents)
    return sum(sizes)


@pytest.mark.parametrize("name", SLICED)
def test_sliced_work_leaves_nothing_of_tokens_times_codes_in_the_graph(monkeypatch, name):
    torch.manual_seed(0)
    quantizer, latents = QUANTIZERS[name](256, 2), images_of_latents(shape=(1, 2, 20, 20))
    assert kept_for_the_backward_pass(quantizer, latents) > 400 * 256
    monkeypatch.setattr(chunks, "BLOCK", 100 * 256)
    assert kept_for_the_backward_pass(quantizer, latents) < 400 * 256 / 10


class Blocks(TorchDispatchMode):
    """Counts the memories of at least ``size`` elements that operations hand back."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().nbytes() >= 4 * self.size:
                self.seen.append(leaf)  # kept, so that no address comes twice
        return result

    def number(self):
        return len({leaf.untyped_storage().data_ptr() for leaf in self.seen})


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SLICED)
def test_a_pass_over_more_slices_makes_no_more_blocks(monkeypatch, name, training):
    monkeypatch.setattr(chunks, "BLOCK", 100 * 256)

    def blocks(width):
        quantizer, latents = QUANTIZERS[name](256, 2).train(training), images_of_latents(shape=(1, 2, 20, width))
        with Blocks(100 * 256) as forward:
            output = quantizer(latents)
        with Blocks(100 * 256) as backward:
            (output.loss + output.quantized.square().sum()).backward()
        return forward.number(), backward.number()

    assert blocks(width=60) == blocks(width=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLICED)
def test_a_step_with_16384_codes_grows_the_process_by_less_than_300_mib(name):
    # With new blocks for each slice the heap of glibc grew by 1.9 (entropy) and 2.2 GiB (gumbel).
    script = Path(__file__).parents[3] / "benchmarks" / "memory.py"
    command = [sys.executable, script, "--of", name, "--cells", "8192x8x16384", "--threads", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert float(done.stdout) < 300


@pytest.mark.parametrize("settings", [{}, {"straight_through": False}])
@pytest.mark.parametrize("training", [True, False])
def test_gumbel_gradients_do_not_depend_on_the_slices(request, training, settings):
    quantizer = make("gumbel", kl_weight=0.5, **settings).train(training)
    tokens = torch.randn(11, D, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def passed(function):
        torch.manual_seed(5)
        quantized, indices, kl = function(tokens)
        torch.manual_seed(6)
        loss = kl + (quantized * torch.randn(11, D)).sum()
        return quantized, indices, kl, *torch.autograd.grad(loss, [tokens, *quantizer.parameters()], allow_unused=True)

    def slice_by_slice(tokens):
        step = quantizer._sample if training else quantizer._choose
        quantized, indices, kls = zip(*map(step, tokens.split(3)), strict=True)
        return torch.cat(quantized), torch.cat(indices), torch.stack(kls).sum()

    expected = passed(slice_by_slice)
    request.getfixturevalue("blocks_of_three_tokens")
    for mine, dense in zip(passed(quantizer._assign), expected, strict=True):
        torch.testing.assert_close(mine, dense)


@pytest.mark.parametrize("name", SLICED)
def test_the_backward_pass_in_slices_is_the_same_under_autocast_and_leaves_the_random_state(
    name, blocks_of_three_tokens
):
    quantizer, latents = make(name), images_of_latents()
    torch.manual_seed(5)
    expected = gradients(quantizer, latents, quantizer(latents).loss)
    torch.manual_seed(5)
    output = quantizer(latents)
    state = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, gradients(quantizer, latents, output.loss), expected))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", SLICED)
def test_slices_without_a_graph_give_what_they_give_with_one(name, blocks_of_three_tokens):
    quantizer = make(name).eval()
    latents = images_of_latents().detach()
    with torch.no_grad():
        inference = quantizer(latents)
    assert torch.equal(inference.indices, quantizer(latents).indices)
    assert inference.quantized.shape == latents.shape


def test_the_entropy_quantizer_is_a_standard_one_with_a_penalty():
    plain, penalised = make("standard"), make("entropy", entropy_weight=0.0, kl_weight=0.0)
    assert isinstance(penalised, EntropyQuantizer)
    assert torch.equal(plain(images_of_latents()).loss, penalised(images_of_latents()).loss)
