"""The gradients at the two ends of a quantizer, against those by hand."""

import pytest
import torch
from strangers import COPIES, LEVELLED, LUCIDRAINS, TABLES, Stranger
from strangers.audio import AUDIO
from strangers.base import flat, floats
from strangers.lucidrains import vq
from strangers.watching import readings_of

from vqtool.diagnostics import find_codebooks


def channels_last(module, weights):
    return flat(weights)


def channels_first(module, weights):
    return flat(weights, 1)


def projected(module, weights):
    return flat(weights) @ module.project_out.weight


def heads(module, weights):
    """In the order of the inner codebook: images, heads, tokens."""
    return flat(projected_heads(module, weights).movedim(-2, 1))


def projected_heads(module, weights):
    weights = weights @ module.project_out.weight if module.has_projections else weights
    return weights.unflatten(-1, (2, -1))


def descript(module, weights):
    return flat(weights, 1) @ module.out_proj.weight[..., 0]


def masked(module, weights):
    """No gradient comes to padding: the library puts other values there."""
    return flat(weights * (torch.arange(10) < torch.tensor([[7], [3]])).unsqueeze(-1))


#: A stranger with a plain straight-through estimator, the gradient of its output in the space of the codes, and the
#: weight of its commitment loss.
PLAIN = {
    "euclidean": (vq(rotation_trick=False), channels_last, 1.0),
    "half the commitment": (vq(rotation_trick=False, commitment_weight=0.5), channels_last, 0.5),
    "cosine": (vq(rotation_trick=False, use_cosine_sim=True), channels_last, 1.0),
    "learnable": (vq(rotation_trick=False, learnable_codebook=True, ema_update=False), channels_last, 1.0),
    "projected": (vq(rotation_trick=False, codebook_dim=3), projected, 1.0),
    "channels first": (vq((2, 4, 10), rotation_trick=False, channel_last=False), channels_first, 1.0),
    "images": (vq((2, 4, 3, 3), rotation_trick=False, accept_image_fmap=True), channels_first, 1.0),
    "heads shared": (vq(rotation_trick=False, heads=2, codebook_dim=2), heads, 1.0),
    "heads projected": (vq(rotation_trick=False, heads=2, codebook_dim=3), heads, 1.0),
    "taming": (COPIES["taming"], channels_first, 1.0),
    "diffusers": (TABLES["diffusers"], channels_first, 1.0),
    "diffusers not legacy": (TABLES["diffusers not legacy"], channels_first, 0.25),
    "chameleon": (TABLES["chameleon"], channels_first, 1.0),
    "dac": (TABLES["dac"], descript, 1.0),
    "encodec": (AUDIO["encodec"], channels_first, 1.0),
    "encodec projected": (AUDIO["encodec projected"], lambda module, w: flat(w, 1) @ module.project_out.weight, 1.0),
    "lfq": (LEVELLED["lfq"], channels_last, 0.0),
    "lfq projected": (LEVELLED["lfq projected"], projected, 0.0),
    "simvq": (COPIES["simvq"], channels_first, 0.25),
    "serezd": (COPIES["serezd"], channels_first, 1.0),
}


def ends(stranger: Stranger, name: str = "vq"):
    """The reading of one call, the gradients that came to its two ends, and the weights of the output in the loss."""
    model = stranger.host()
    readings, _ = readings_of(find_codebooks(model))
    batch = stranger.batches()[0].double().float()
    output = model(batch)
    quantized, *losses = floats(output)
    weights = torch.randn(quantized.shape, generator=torch.Generator().manual_seed(2))
    (reading,) = readings[name]
    arrived = {}
    for end in ("entering", "leaving"):
        boundary = getattr(reading, end)
        boundary.tensor.register_hook(lambda gradient, end=end: arrived.setdefault(end, gradient))
    commitment = losses if name_of_loss(model.vq) is None else losses[:1]
    ((quantized * weights).sum() + sum(each.sum() for each in commitment)).backward()
    tokens = {end: getattr(reading, end).tokens(gradient) for end, gradient in arrived.items()}
    return model.vq, reading, tokens, weights


def name_of_loss(module):
    """Of DAC only the first loss is the commitment; LFQ's is an entropy, and none here."""
    return "first" if hasattr(module, "in_proj") else None


@pytest.mark.parametrize("name", PLAIN)
def test_gradients_at_both_ends_are_those_by_hand(name):
    stranger, by_hand, beta = PLAIN[name]
    if name.startswith("lfq"):
        stranger = without_entropy(stranger)
    module, reading, arrived, weights = ends(stranger)
    expected = by_hand(module, weights).detach()
    torch.testing.assert_close(arrived["leaving"], expected, rtol=1e-5, atol=1e-6)
    pull = 2 * beta / reading.latents.numel() * (reading.latents - reading.codes)
    torch.testing.assert_close(arrived["entering"], arrived["leaving"] + pull, rtol=1e-5, atol=1e-6)


def without_entropy(stranger: Stranger) -> Stranger:
    return Stranger(stranger.build, stranger.shape, call=lambda vq, x: vq(x).quantized)


def test_separate_heads_have_ends_of_their_own():
    stranger = vq(rotation_trick=False, heads=2, codebook_dim=2, separate_codebook_per_head=True)
    for head in range(2):
        module, reading, arrived, weights = ends(stranger, f"vq.head{head}")
        expected = flat(projected_heads(module, weights)[..., head, :])
        torch.testing.assert_close(arrived["leaving"], expected, rtol=1e-5, atol=1e-6)
        pull = 2 / (2 * reading.latents.numel()) * (reading.latents - reading.codes)  # the mean is over both heads
        torch.testing.assert_close(arrived["entering"], expected + pull, rtol=1e-5, atol=1e-6)


def test_padding_gets_no_gradient():
    stranger = vq(rotation_trick=False, call=LUCIDRAINS["mask"].call)
    module, reading, arrived, weights = ends(stranger)
    expected = masked(module, weights)
    torch.testing.assert_close(arrived["leaving"], expected, rtol=1e-5, atol=1e-6)
    pull = 2 / (int(reading.mask.sum()) * 4) * (reading.latents - reading.codes) * reading.mask.unsqueeze(1)
    torch.testing.assert_close(arrived["entering"], expected + pull, rtol=1e-5, atol=1e-6)


def test_levels_let_the_gradient_through_their_bounds():
    """By hand: FSQ rounds what tanh bounds, so the gradient is that of the bounds."""
    stranger = LEVELLED["fsq projected"]
    module, reading, arrived, weights = ends(stranger)
    torch.testing.assert_close(arrived["leaving"], projected(module, weights).detach(), rtol=1e-5, atol=1e-6)
    z = reading.latents.clone().requires_grad_()
    (through,) = torch.autograd.grad(module.bound(z), z, arrived["leaving"])
    torch.testing.assert_close(arrived["entering"], through, rtol=1e-5, atol=1e-6)


NO_ENDS = {
    "emu3": TABLES["emu3"],
    "transformers encodec": AUDIO["transformers encodec"],
}


@pytest.mark.parametrize("name", NO_ENDS)
def test_where_nothing_leaves_there_is_no_end(name):
    model = NO_ENDS[name].host()
    readings, _ = readings_of(find_codebooks(model))
    model(NO_ENDS[name].batches()[0])
    assert readings
    assert all(reading.leaving is None for mine in readings.values() for reading in mine)


def test_without_autograd_no_gradient_comes_by_the_ends():
    model = LUCIDRAINS["ema"].host()
    readings, _ = readings_of(find_codebooks(model))
    with torch.no_grad():
        model(LUCIDRAINS["ema"].batches()[0])
    (reading,) = readings["vq"]
    assert not reading.entering.tensor.requires_grad
    assert not reading.leaving.tensor.requires_grad


GRADIENTS = {
    "learnable": (LUCIDRAINS["learnable"], lambda module: module._codebook.embed.grad[0]),
    "taming": (COPIES["taming"], lambda module: module.embedding.weight.grad),
    "dac": (TABLES["dac"], lambda module: module.codebook.weight.grad),
    "gumbel": (COPIES["taming gumbel"], lambda module: module.embed.weight.grad),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_codes_that_are_parameters_have_their_gradient(name):
    stranger, by_hand = GRADIENTS[name]
    model = stranger.host()
    (codebook,) = find_codebooks(model).values()
    readings_of({"vq": codebook})
    sum(each.square().sum() for each in floats(model(stranger.batches()[0]))).backward()
    assert by_hand(model.vq).abs().sum() > 0
    torch.testing.assert_close(codebook.gradient(), by_hand(model.vq), rtol=0, atol=0)


MOVED_BY = {
    "ema": (LUCIDRAINS["ema"], []),
    "learnable": (LUCIDRAINS["learnable"], ["_codebook.embed"]),
    "sim": (LEVELLED["sim"], ["code_transform.weight"]),
    "simvq": (COPIES["simvq"], ["embedding_proj.weight", "embedding_proj.bias"]),
    "fsq": (LEVELLED["fsq projected"], []),
    "latent quantize": (LEVELLED["latent quantize"], [f"values_per_latent.{axis}" for axis in range(3)]),
    "serezd moving": (COPIES["serezd moving"], []),
}


@pytest.mark.parametrize("name", MOVED_BY)
def test_what_an_optimizer_moves_the_codes_by(name):
    stranger, names = MOVED_BY[name]
    model = stranger.host()
    (codebook,) = find_codebooks(model).values()
    parameters = dict(model.vq.named_parameters())
    assert [id(each) for each in codebook.parameters()] == [id(parameters[name]) for name in names]
    if name != "learnable":
        assert codebook.gradient() is None
