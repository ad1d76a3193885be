import pytest
import torch

from vqtool.vqgan.autoencoder.discriminator import NLayerDiscriminator
from vqtool.vqgan.autoencoder.model import build_model, build_quantizer
from vqtool.vqgan.autoencoder.settings import build_autoencoder_config
from vqtool.vqgan.quantizers import QUANTIZERS
from vqtool.vqgan.training.randomness import seeded

SMALL = {
    "data": {"image_size": 16},
    "model": {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "z_channels": 8},
    "quantizer": {"codebook_size": 32, "dim": 4},
}


def small(spec="standard", seed=0, **quantizer):
    tree = SMALL | {"quantizer": SMALL["quantizer"] | {"spec": spec} | quantizer, "train": {"seed": seed}}
    return build_model(build_autoencoder_config(tree))


def f16(spec):
    """The default model, K = 1024, without its numbers."""
    with torch.device("meta"):
        return build_model(build_autoencoder_config({"quantizer": {"spec": spec}}))


def apart_from_the_quantizer(model):
    return {name: value for name, value in model.state_dict().items() if not name.startswith("quantize.")}


# ---- initial weights


@pytest.mark.parametrize("spec", [*QUANTIZERS, "ema+reset"])
def test_the_autoencoder_starts_the_same_whatever_the_quantizer(spec):
    ours, others = apart_from_the_quantizer(small(spec)), apart_from_the_quantizer(small("standard", codebook_size=64))
    assert ours.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in ours.items())


@pytest.mark.parametrize("spec", QUANTIZERS)
def test_the_seed_decides_every_weight(spec):
    first, again, other = (small(spec, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    for name in ("encoder.conv_in.weight", "decoder.conv_out.weight", "quant_conv.weight", "post_quant_conv.bias"):
        assert not torch.equal(first[name], other[name])
    codes = [name for name in first if name.startswith("quantize.emb") and name.endswith("weight")]
    assert codes
    assert all(not torch.equal(first[name], other[name]) for name in codes)


def test_a_seeded_block_does_not_show_afterwards():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with seeded(5):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(5):
        assert torch.equal(torch.rand(3), first)


def test_a_seeded_block_leaves_the_seed_of_other_devices_alone(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    with seeded(5):
        pass
    assert seeds == []


@pytest.mark.parametrize("spec", QUANTIZERS)
def test_codes_start_as_asked_for(spec):
    uniform = small(spec, init="uniform").quantize.codebook
    assert 0.9 / 32 < uniform.abs().max() <= 1 / 32
    normal = small(spec, init="normal").quantize.codebook
    assert normal.std().item() == pytest.approx(1, abs=0.2)
    assert normal.mean().item() == pytest.approx(0, abs=0.2)


def test_codes_of_an_average_start_with_sums_and_counts_that_agree():
    book = small("ema", init="normal").quantize.embedding
    assert torch.equal(book.embed_avg, book.weight)
    assert torch.equal(book.cluster_size, torch.ones(32))


def test_the_settings_reach_the_quantizer():
    settings = build_autoencoder_config(
        {"quantizer": {"spec": "gumbel:temperature_steps=77", "codebook_size": 6, "dim": 3}}
    )
    quantizer = build_quantizer(settings.quantizer)
    assert (quantizer.settings.temperature_steps, quantizer.codebook_size, quantizer.dim) == (77, 6, 3)


# ---- the file format of taming-transformers

QUANTIZER_SHAPES = {
    "standard": {"embedding.weight": (1024, 256)},
    "entropy": {"embedding.weight": (1024, 256)},
    "ema": {
        "embedding.weight": (1024, 256),
        "embedding.cluster_size": (1024,),
        "embedding.embed_avg": (1024, 256),
    },
    "gumbel": {
        "proj.weight": (1024, 256, 1, 1),
        "proj.bias": (1024,),
        "embed.weight": (1024, 256),
        "updates": (),
    },
}
CONVOLUTIONS = {
    "quant_conv.weight": (256, 256, 1, 1),
    "quant_conv.bias": (256,),
    "post_quant_conv.weight": (256, 256, 1, 1),
    "post_quant_conv.bias": (256,),
}


@pytest.mark.parametrize("spec", QUANTIZERS)
def test_the_default_has_the_names_and_shapes_of_taming_f16(spec):
    shapes = {name: tuple(value.shape) for name, value in f16(spec).state_dict().items()}
    parts = {part: [name for name in shapes if name.startswith(part)] for part in ("encoder.", "decoder.")}
    assert [len(names) for names in parts.values()] == [144, 194]
    rest = {name: shape for name, shape in shapes.items() if name not in parts["encoder."] + parts["decoder."]}
    quantizer = {f"quantize.{name}": shape for name, shape in QUANTIZER_SHAPES[spec].items()}
    assert rest == CONVOLUTIONS | quantizer


def test_a_standard_model_has_343_names_and_55_more_with_the_losses():
    model, discriminator = len(f16("standard").state_dict()), len(NLayerDiscriminator().state_dict())
    perceptual = 33  # LPIPS: 2 of the scaling layer, 26 of the 13 convolutions of VGG16, 5 linear weights
    assert model == 343
    assert model + discriminator + perceptual == 398


@pytest.mark.parametrize(
    ("spec", "parameters"),
    # 29 298 176 (encoder) + 42 449 795 (decoder) + 2 x 65 792 (1 x 1 convolutions) + K D and, for gumbel, K D + K
    [("standard", 72_141_699), ("entropy", 72_141_699), ("ema", 71_879_555), ("gumbel", 72_404_867)],
)
def test_the_default_has_the_parameters_of_taming_f16(spec, parameters):
    assert sum(parameter.numel() for parameter in f16(spec).parameters()) == parameters


# ---- images to codes and back


@pytest.mark.parametrize(("view", "channels"), [("image", 3), ("edges", 3), ("segmentation:7", 7), ("depth", 3)])
def test_a_model_takes_and_gives_the_channels_of_its_view(view, channels):
    torch.manual_seed(0)
    model = build_model(build_autoencoder_config(SMALL | {"data": {"image_size": 16, "view": view}})).eval()
    images = torch.rand(2, channels, 16, 16)
    assert model(images)[0].shape == images.shape
    assert model.encode(images).indices.shape == (2, 8, 8)


@pytest.mark.parametrize("spec", QUANTIZERS)
def test_images_become_codes_and_codes_images(spec):
    torch.manual_seed(0)
    model, images = small(spec, init="normal").eval(), torch.rand(2, 3, 16, 16) * 2 - 1
    reconstructions, output = model(images)
    assert reconstructions.shape == images.shape
    assert output.indices.shape == (2, 8, 8)
    assert torch.equal(model.encode(images).indices, output.indices)
    from_indices = model.decode(model.quantize.lookup(output.indices))
    torch.testing.assert_close(from_indices, reconstructions, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", QUANTIZERS)
def test_one_backward_pass_reaches_every_parameter(spec):
    torch.manual_seed(0)
    model, images = small(spec, init="normal"), torch.rand(2, 3, 16, 16) * 2 - 1
    reconstructions, output = model(images)
    ((reconstructions - images).square().mean() + output.loss).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
