"""LPIPS, the perceptual distance, with weights that are read from disk and never downloaded.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), and the package
``lpips`` (version 0.1 heads), which ships the linear heads; the backbones are torchvision's ImageNet classifiers.
"""

import pickle
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...diagnostics.errors import InputError, unknown


class _Backbone(NamedTuple):
    file: str
    """Name in the torch hub cache."""
    model: str
    """The function of torchvision.models that downloads it."""
    smallest: int
    """Side in pixels below which an image has no features left."""


_BACKBONES = {
    "vgg": _Backbone("vgg16-397923af.pth", "vgg16", 16),
    "alex": _Backbone("alexnet-owt-7be5be79.pth", "alexnet", 31),
    "squeeze": _Backbone("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1", 17),
}


def perceptual_loss(net: str, weights: Path | None = None) -> nn.Module:
    """LPIPS on one backbone: a frozen module, in eval mode whatever ``train`` says.

    Args:
        net: "vgg", "alex" or "squeeze".
        weights: File of the backbone, as torchvision writes it; None looks in the torch hub cache.

    Returns:
        A module whose ``forward(x, y)`` takes images (B, 3, H, W) in [-1, 1] and returns distances (B,) in float32.

    Raises:
        InputError: The net is unknown, or its file is missing, cut short, or not of this net.
    """
    if line := missing_weights(net, weights):
        raise InputError(line)
    import lpips  # deferred: it brings torchvision and scikit-image along

    # On the meta device nothing is drawn at random: building it costs no time and leaves the generators alone.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lpips spells pretrained=False in torchvision's deprecated way
        network = lpips.LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False)
    loss = _PerceptualLoss(net, network.scaling_layer, network.net, nn.ModuleList(network.lins))
    heads = read_weights(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth")
    loss.heads.load_state_dict({name.removeprefix("lin"): head for name, head in heads.items()}, assign=True)
    path = weights or hub_file(_BACKBONES[net].file)
    loss.slices.load_state_dict(_backbone_weights(loss.slices, net, path), assign=True)
    return loss.requires_grad_(False)


def missing_weights(net: str, weights: Path | None = None) -> str | None:
    """None where the backbone's file is present, else one line that names the ways out.

    Raises:
        InputError: The net is unknown.
    """
    if net not in _BACKBONES:
        raise unknown("perceptual net", net, _BACKBONES)
    path = weights or hub_file(_BACKBONES[net].file)
    if path.is_file():
        return None
    return (
        f"LPIPS ({net}) needs the file {path}: place it there (where there is a network, "
        f'torchvision.models.{_BACKBONES[net].model}(weights="DEFAULT") puts it in the hub cache), '
        "name a copy by loss.perceptual_weights=PATH, or train without it by loss.perceptual=none"
    )


def hub_file(name: str) -> Path:
    """Where the torch hub cache keeps a file of weights (``TORCH_HOME`` moves the cache)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def read_weights(path: Path) -> dict[str, Tensor]:
    """A dictionary of tensors from a file that may come from anywhere: no code of it is run.

    Raises:
        InputError: The file cannot be read, is cut short, or holds anything but tensors by name.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is not a whole file of PyTorch weights") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} is not a dictionary of tensors by name, as torch.save(net.state_dict(), path) writes")
    return content


def _backbone_weights(slices: nn.Module, net: str, path: Path) -> dict[str, Tensor]:
    """Torchvision's ``features.N.*`` by the names that they have in lpips' slices, ``sliceS.N.*``."""
    weights = read_weights(path)
    state = {}
    for name, expected in slices.state_dict().items():
        source = "features." + name.partition(".")[2]
        if source not in weights or weights[source].shape != expected.shape:
            found = f"has shape {tuple(weights[source].shape)}" if source in weights else "is missing"
            raise InputError(f"{path} is no {net} backbone: {source} {found}, expected {tuple(expected.shape)}")
        state[name] = weights[source].float()
    return state


class _PerceptualLoss(nn.Module):
    def __init__(self, net: str, scaling: nn.Module, slices: nn.Module, heads: nn.ModuleList) -> None:
        super().__init__()
        self.net = net
        self.scaling = scaling
        self.slices = slices
        self.heads = heads
        self.train(False)

    def train(self, mode: bool = True) -> "_PerceptualLoss":
        """Stays in eval mode: the heads have dropout, which would make the distance random."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        smallest = _BACKBONES[self.net].smallest
        if min(x.shape[-2:]) < smallest:
            size = "x".join(map(str, x.shape[-2:]))
            raise InputError(f"LPIPS ({self.net}) needs images of {smallest} pixels a side or more, got {size}")
        with torch.autocast(x.device.type, enabled=False):
            layers = zip(self.heads, self._features(x), self._features(y), strict=True)
            return torch.stack([head((a - b).square()).mean((1, 2, 3)) for head, a, b in layers]).sum(0)

    def _features(self, images: Tensor) -> list[Tensor]:
        """The features of each layer, of unit length over the channels."""
        return [_unit_length(layer) for layer in self.slices(self.scaling(images.float()))]


def _unit_length(features: Tensor) -> Tensor:
    """Features (B, C, H, W) divided by their norm over C, as ``lpips.normalize_tensor``, with a finite gradient.

    Where the squares of small features underflow, lpips 0.1.4 takes the root of zero, and its gradient is NaN.
    """
    eps = 1e-10
    return features / (features.square().sum(1, keepdim=True).clamp_min(eps**2).sqrt() + eps)
