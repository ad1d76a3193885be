import pytest
import torch

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.autoencoder.discriminator import NLayerDiscriminator


def batch_norm(name, channels):
    return {
        f"{name}.weight": (channels,),
        f"{name}.bias": (channels,),
        f"{name}.running_mean": (channels,),
        f"{name}.running_var": (channels,),
        f"{name}.num_batches_tracked": (),
    }


def test_the_default_has_the_keys_shapes_and_size_of_taming():
    discriminator = NLayerDiscriminator()
    expected = {
        "main.0.weight": (64, 3, 4, 4),
        "main.0.bias": (64,),
        "main.2.weight": (128, 64, 4, 4),
        "main.5.weight": (256, 128, 4, 4),
        "main.8.weight": (512, 256, 4, 4),
        "main.11.weight": (1, 512, 4, 4),
        "main.11.bias": (1,),
    }
    expected |= batch_norm("main.3", 128) | batch_norm("main.6", 256) | batch_norm("main.9", 512)
    assert {name: tuple(tensor.shape) for name, tensor in discriminator.state_dict().items()} == expected
    assert len(expected) == 22
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 2_765_633


def test_weights_start_small_and_batch_norm_starts_near_one():
    torch.manual_seed(0)
    main = NLayerDiscriminator().main
    assert main[8].weight.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert main[8].weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert main[9].weight.mean().item() == pytest.approx(1.0, abs=0.005)
    assert main[9].weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert main[9].bias.abs().max() == 0


@pytest.mark.parametrize(
    ("n_layers", "side", "logits"), [(3, 256, 30), (3, 32, 2), (3, 24, 1), (2, 32, 6), (1, 6, 1), (4, 48, 1)]
)
def test_there_is_one_logit_per_patch(n_layers, side, logits):
    discriminator = NLayerDiscriminator(ndf=8, n_layers=n_layers)
    assert discriminator(torch.zeros(2, 3, side, side)).shape == (2, 1, logits, logits)


def test_a_logit_of_three_layers_sees_70_pixels():
    torch.manual_seed(0)
    discriminator = NLayerDiscriminator(ndf=8).eval()
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    discriminator(images)[0, 0, 15, 15].backward()
    assert images.grad is not None
    seen = images.grad[0].abs().sum(0).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [70, 70]


def test_widths_stop_growing_at_eight_times_the_first():
    main = NLayerDiscriminator(ndf=4, n_layers=5).main
    widths = [layer.out_channels for layer in main if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [4, 8, 16, 32, 32, 32, 1]


@pytest.mark.parametrize(
    ("n_layers", "size", "advice"),
    [
        (3, (16, 16), "24 pixels a side or more, got 16x16; choose n_layers 2 or less"),
        (4, (64, 32), "48 pixels a side or more, got 64x32; choose n_layers 3 or less"),
        (1, (4, 4), "6 pixels a side or more, got 4x4; no n_layers takes fewer than 6"),
    ],
)
def test_too_small_an_image_is_refused_with_the_way_out(n_layers, size, advice):
    with pytest.raises(InputError, match=advice):
        NLayerDiscriminator(ndf=8, n_layers=n_layers)(torch.zeros(2, 3, *size))


def test_a_discriminator_has_at_least_one_layer():
    with pytest.raises(InputError, match="n_layers is 0"):
        NLayerDiscriminator(n_layers=0)
