import copy
import math
import subprocess
import sys
from pathlib import Path

import lpips
import pytest
import torch
from torchvision import models

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.autoencoder.perceptual import missing_weights, perceptual_loss

FILES = {
    "vgg": ("vgg16-397923af.pth", models.vgg16),
    "alex": ("alexnet-owt-7be5be79.pth", models.alexnet),
    "squeeze": ("squeezenet1_1-b8a52dc0.pth", models.squeezenet1_1),
}
NETS = pytest.mark.parametrize("net", list(FILES))


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    torch.manual_seed(0)
    folder = tmp_path / "hub" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def random_backbone(net):
    """Torchvision's own feature network with random weights that keep the scale of the activations."""
    with torch.device("meta"):
        features = FILES[net][1]().features
    features = features.to_empty(device="cpu").eval()
    for parameter in features.parameters():
        fan_in = parameter[0].numel()
        torch.nn.init.normal_(parameter, std=math.sqrt(2 / fan_in) if parameter.ndim == 4 else 0.1)
    return features


def save(features, path):
    """As torchvision's file looks: the features, and a classifier that LPIPS has no use for."""
    state = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


def images(*shape):
    return torch.rand(shape) * 2 - 1


def lpips_of_the_package(net, features):
    """The package's own module, with the backbone put in layer by layer."""
    module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for part in module.net.children():
        for index, layer in part.named_children():
            layer.load_state_dict(copy.deepcopy(features[int(index)].state_dict()))
    return module


@NETS
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_is_the_distance_of_the_lpips_package(net, hub):
    features = random_backbone(net)
    save(features, hub / FILES[net][0])
    x, y = images(3, 3, 48, 40), images(3, 3, 48, 40)
    distance = perceptual_loss(net)(x, y)
    assert distance.shape == (3,)
    assert (distance > 1e-4).all()
    torch.testing.assert_close(distance, lpips_of_the_package(net, features)(x, y).flatten(), rtol=1e-5, atol=1e-7)


@NETS
def test_the_loaded_features_are_those_of_torchvision(net, tmp_path):
    features = random_backbone(net)
    loss = perceptual_loss(net, save(features, tmp_path / "copy.pth"))
    x = images(2, 3, 48, 48)
    layers = loss.slices(x)
    last = max(int(name.split(".")[1]) for name in loss.slices.state_dict())
    torch.testing.assert_close(layers[-1], features[: last + (1 if net == "squeeze" else 2)](x))
    assert len(layers) == len(loss.heads)


def test_it_stays_in_eval_mode_and_frozen(tmp_path):
    loss = perceptual_loss("alex", save(random_backbone("alex"), tmp_path / "a.pth"))
    holder = torch.nn.Sequential(loss).train()
    assert holder.training
    assert not any(module.training for module in loss.modules())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    x, y = images(2, 3, 32, 32), images(2, 3, 32, 32)
    assert torch.equal(loss(x, y), loss(x, y))  # the heads' dropout is off


def test_the_distance_of_an_image_does_not_depend_on_its_batch_and_is_zero_to_itself(tmp_path):
    loss = perceptual_loss("squeeze", save(random_backbone("squeeze"), tmp_path / "s.pth"))
    x, y = images(3, 3, 32, 32), images(3, 3, 32, 32)
    torch.testing.assert_close(loss(x, y)[1:2], loss(x[1:2], y[1:2]))
    assert loss(x, x).tolist() == [0.0, 0.0, 0.0]


def test_it_is_computed_in_float32_under_autocast(tmp_path):
    loss = perceptual_loss("alex", save(random_backbone("alex"), tmp_path / "a.pth"))
    x, y = images(2, 3, 32, 32), images(2, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(x, y)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(x, y))


def test_building_it_draws_no_random_numbers(tmp_path):
    path = save(random_backbone("alex"), tmp_path / "a.pth")
    before = torch.get_rng_state()
    perceptual_loss("alex", path)
    assert torch.equal(torch.get_rng_state(), before)


# ---- the gradient


def whisper(features):
    """Features that are not zero, though the sum of their squares is."""
    for parameter in features.parameters():
        parameter.data *= 0 if parameter.ndim == 1 else 1e-25
    return features


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_gradient_is_finite_where_the_norm_of_the_features_vanishes_though_that_of_lpips_is_not(tmp_path):
    features = whisper(random_backbone("alex"))
    loss = perceptual_loss("alex", save(features, tmp_path / "a.pth"))
    x, y = images(1, 3, 48, 48).requires_grad_(), images(1, 3, 48, 48)
    assert torch.autograd.grad(loss(x, y).sum(), x)[0].isfinite().all()
    assert torch.autograd.grad(lpips_of_the_package("alex", features)(x, y).sum(), x)[0].isnan().any()


@NETS
def test_the_gradient_is_finite_on_constant_images(net, tmp_path):
    loss = perceptual_loss(net, save(random_backbone(net), tmp_path / "w.pth"))
    x = torch.stack([torch.full((3, 32, 32), value) for value in (-1.0, 0.0, 1.0)]).requires_grad_()
    loss(x, torch.zeros(3, 3, 32, 32)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[0] != 0).any()
    assert (x.grad[1] == 0).all()  # equal images: the minimum


# ---- wrong input, one line each


@NETS
def test_missing_weights_name_the_file_and_the_ways_out(net, hub):
    line = missing_weights(net)
    assert line is not None
    assert "\n" not in line
    for part in (str(hub / FILES[net][0]), FILES[net][1].__name__, "loss.perceptual_weights=", "loss.perceptual=none"):
        assert part in line
    with pytest.raises(InputError) as error:
        perceptual_loss(net)
    assert str(error.value) == line


def test_present_weights_are_not_missing(hub):
    (hub / FILES["vgg"][0]).touch()
    assert missing_weights("vgg") is None
    assert missing_weights("vgg", Path("no/such/file.pth")) is not None


def test_an_unknown_net_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="'vgg16' is unknown; did you mean 'vgg'"):
        perceptual_loss("vgg16")


def test_a_truncated_file_is_refused_in_one_line(tmp_path):
    path = save(random_backbone("alex"), tmp_path / "a.pth")
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"a\.pth is not a whole file of PyTorch weights$"):
        perceptual_loss("alex", path)


def test_a_file_of_another_net_is_refused_in_one_line(tmp_path):
    path = save(random_backbone("squeeze"), tmp_path / "s.pth")
    with pytest.raises(InputError, match=r"s\.pth is no alex backbone: features\.0\.weight has shape \(64, 3, 3, 3\)"):
        perceptual_loss("alex", path)


def test_a_file_that_lacks_a_layer_is_refused_in_one_line(tmp_path):
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"features\.0\.bias is missing, expected \(64,\)"):
        perceptual_loss("alex", tmp_path / "a.pth")


class Payload:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_a_file_with_code_in_it_is_refused_and_the_code_is_not_run(tmp_path, capsys):
    torch.save({"features.0.weight": Payload()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="not a whole file of PyTorch weights"):
        perceptual_loss("alex", tmp_path / "a.pth")
    assert capsys.readouterr().out == ""


def test_a_file_that_holds_no_tensors_by_name_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "a.pth")
    with pytest.raises(InputError, match="not a dictionary of tensors"):
        perceptual_loss("alex", tmp_path / "a.pth")


@pytest.mark.parametrize(("net", "smallest"), [("vgg", 16), ("alex", 31), ("squeeze", 17)])
def test_images_have_a_smallest_size(net, smallest, tmp_path):
    loss = perceptual_loss(net, save(random_backbone(net), tmp_path / "w.pth"))
    assert loss(images(1, 3, smallest, smallest), images(1, 3, smallest, smallest)).isfinite().all()
    with pytest.raises(InputError, match=f"{smallest} pixels a side or more, got {smallest - 1}x64"):
        loss(images(1, 3, smallest - 1, 64), images(1, 3, smallest - 1, 64))


def test_importing_the_module_does_not_bring_lpips_along():
    module = "vqtool.vqgan.autoencoder.perceptual"
    program = f"import sys, {module}; print([m for m in ('lpips', 'torchvision') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
