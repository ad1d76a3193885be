import pytest
import torch
import torch.nn.functional as F

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.autoencoder.layers import AttnBlock, Downsample, ResnetBlock, Upsample, group_norm
from vqtool.vqgan.autoencoder.networks import Decoder, Encoder

SMALL = {
    "ch": 32,
    "ch_mult": (1, 2, 2),
    "num_res_blocks": 1,
    "attn_resolutions": (),
    "resolution": 32,
    "z_channels": 64,
}


# ---- the file format of taming-transformers, written down from its description: key -> shape


def convolution(name, inputs, outputs, side):
    return {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def norm(name, channels):
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def residual(name, inputs, outputs):
    shapes = norm(f"{name}.norm1", inputs) | convolution(f"{name}.conv1", inputs, outputs, 3)
    shapes |= norm(f"{name}.norm2", outputs) | convolution(f"{name}.conv2", outputs, outputs, 3)
    return shapes | (convolution(f"{name}.nin_shortcut", inputs, outputs, 1) if inputs != outputs else {})


def attention(name, channels):
    shapes = norm(f"{name}.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= convolution(f"{name}.{part}", channels, channels, 1)
    return shapes


def middle(channels):
    return (
        residual("mid.block_1", channels, channels)
        | attention("mid.attn_1", channels)
        | residual("mid.block_2", channels, channels)
    )


def f16_encoder():
    shapes = convolution("conv_in", 3, 128, 3) | middle(512) | norm("norm_out", 512)
    shapes |= convolution("conv_out", 512, 256, 3)
    for level, (inputs, outputs) in enumerate([(128, 128), (128, 128), (128, 256), (256, 256), (256, 512)]):
        shapes |= residual(f"down.{level}.block.0", inputs, outputs)
        shapes |= residual(f"down.{level}.block.1", outputs, outputs)
        if level < 4:
            shapes |= convolution(f"down.{level}.downsample.conv", outputs, outputs, 3)
    return shapes | attention("down.4.attn.0", 512) | attention("down.4.attn.1", 512)


def f16_decoder():
    shapes = convolution("conv_in", 256, 512, 3) | middle(512) | norm("norm_out", 128)
    shapes |= convolution("conv_out", 128, 3, 3)
    for level, (inputs, outputs) in enumerate([(128, 128), (256, 128), (256, 256), (512, 256), (512, 512)]):
        shapes |= residual(f"up.{level}.block.0", inputs, outputs)
        shapes |= residual(f"up.{level}.block.1", outputs, outputs) | residual(f"up.{level}.block.2", outputs, outputs)
        if level > 0:
            shapes |= convolution(f"up.{level}.upsample.conv", outputs, outputs, 3)
    return shapes | attention("up.4.attn.0", 512) | attention("up.4.attn.1", 512) | attention("up.4.attn.2", 512)


@pytest.mark.parametrize(
    ("module", "expected", "keys", "parameters"),
    [(Encoder, f16_encoder, 144, 29_298_176), (Decoder, f16_decoder, 194, 42_449_795)],
)
def test_the_default_has_the_keys_shapes_and_size_of_taming_f16(module, expected, keys, parameters):
    with torch.device("meta"):
        state = module().state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected()
    assert len(state) == keys
    assert sum(tensor.numel() for tensor in state.values()) == parameters


def test_up_0_works_at_full_resolution_and_runs_last():
    decoder = Decoder(**SMALL)
    sides = {}
    for i, level in enumerate(decoder.up):
        level.register_forward_pre_hook(lambda _, inputs, i=i: sides.update({i: inputs[0].shape[-1]}))
    decoder(torch.zeros(1, 64, 8, 8))
    assert sides == {2: 8, 1: 16, 0: 32}
    assert list(sides) == [2, 1, 0]


# ---- shapes


@pytest.mark.parametrize("size", [(32, 32), (64, 32)])
def test_encoder_and_decoder_are_inverse_in_shape(size):
    images = torch.rand(2, 3, *size)
    latents = Encoder(**SMALL)(images)
    assert latents.shape == (2, 64, size[0] // 4, size[1] // 4)
    assert Decoder(**SMALL)(latents).shape == images.shape


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    options = SMALL | {"attn_resolutions": (16, 8)}
    encoder, decoder = Encoder(**options), Decoder(**options)
    decoder(encoder(torch.rand(2, 3, 32, 32))).square().mean().backward()
    for part in (encoder, decoder):
        assert [name for name, p in part.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_dropout_is_active_in_training_only():
    torch.manual_seed(0)
    encoder, images = Encoder(**SMALL, dropout=0.5), torch.rand(1, 3, 32, 32)
    assert not torch.equal(encoder(images), encoder(images))
    encoder.eval()
    assert torch.equal(encoder(images), encoder(images))


def test_a_resolution_that_cannot_be_halved_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="resolution 30 is not a multiple of 4; the nearest is 32"):
        Encoder(**SMALL | {"resolution": 30})


def test_attention_at_a_resolution_of_no_level_is_refused_with_the_levels():
    with pytest.raises(InputError, match=r"side 20; choose from 32, 16, 8 \(nearest: 16\)"):
        Decoder(**SMALL | {"attn_resolutions": (20,)})


# ---- the blocks against slow twins


def test_attention_is_the_explicit_softmax():
    torch.manual_seed(0)
    block, x = AttnBlock(64), torch.randn(2, 64, 5, 7)
    h = block.norm(x)
    expected = torch.empty_like(x)
    for b in range(2):
        q, k, v = (conv(h[b : b + 1])[0].reshape(64, 35) for conv in (block.q, block.k, block.v))
        for i in range(35):
            weights = torch.softmax((q[:, i] @ k) * 64**-0.5, dim=0)
            expected[b, :, i // 7, i % 7] = v @ weights
    torch.testing.assert_close(block(x), x + block.proj_out(expected), rtol=1e-5, atol=1e-5)


def test_a_residual_block_is_two_norm_swish_convolution_stages_and_a_skip():
    torch.manual_seed(0)
    block, x = ResnetBlock(32, 64), torch.randn(2, 32, 6, 6)

    def stage(x, norm, conv):
        grouped = x.reshape(2, 32, -1)
        mean, variance = grouped.mean(2, keepdim=True), grouped.var(2, unbiased=False, keepdim=True)
        normed = ((grouped - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
        normed = normed * norm.weight[:, None, None] + norm.bias[:, None, None]
        return F.conv2d(normed * torch.sigmoid(normed), conv.weight, conv.bias, padding=1)

    expected = stage(stage(x, block.norm1, block.conv1), block.norm2, block.conv2) + block.nin_shortcut(x)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_downsampling_pads_right_and_bottom_only():
    down = Downsample(1)
    torch.nn.init.constant_(down.conv.weight, 1.0)
    torch.nn.init.zeros_(down.conv.bias)
    # windows start at 0 and 2: the second one has two pixels of four inside, so 3 * 2 and 2 * 2 ones
    assert down(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9.0, 6.0], [6.0, 4.0]]


def test_upsampling_repeats_each_position_before_the_convolution():
    up = Upsample(1)
    torch.nn.init.zeros_(up.conv.weight)
    torch.nn.init.zeros_(up.conv.bias)
    up.conv.weight.data[0, 0, 1, 1] = 1.0
    assert up(torch.tensor([[[[1.0, 2.0]]]]))[0, 0].tolist() == [[1.0, 1.0, 2.0, 2.0]] * 2


@pytest.mark.parametrize(("channels", "groups"), [(512, 32), (32, 32), (16, 16), (48, 16), (3, 1)])
def test_few_channels_have_as_many_groups_as_divide_them(channels, groups):
    assert group_norm(channels).num_groups == groups
    assert group_norm(channels).eps == 1e-6
