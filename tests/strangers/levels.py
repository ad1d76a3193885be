"""Levels, bits and projected tables: vector_quantize_pytorch, diffusers, transformers."""

import torch
from diffusers.models.autoencoders.autoencoder_vidtok import FSQRegularizer
from diffusers.pipelines.ace_step.modeling_ace_step import _AceStepResidualFSQ
from torch import Tensor, nn
from transformers.models.neucodec.configuration_neucodec import NeuCodecConfig
from transformers.models.neucodec.modeling_neucodec import NeuCodecFiniteScalarQuantization
from transformers.models.xcodec2.configuration_xcodec2 import Xcodec2Config
from transformers.models.xcodec2.modeling_xcodec2 import Xcodec2FiniteScalarQuantization
from vector_quantize_pytorch import (
    FSQ,
    LFQ,
    BinaryMapper,
    GroupedResidualFSQ,
    GroupedResidualLFQ,
    LatentQuantize,
    ResidualFSQ,
    ResidualLFQ,
    ResidualSimVQ,
    SimVQ,
)
from vector_quantize_pytorch.evo_lookup_free_quantization import EvoLFQ
from vector_quantize_pytorch.finite_scalar_perturbation import FSP

from strangers.base import Seen, Stranger, Tokens, flat, on_return

LEVELS = [5, 4, 3]


def spy_ends(module: nn.Module, seen: Seen, name: str = "vq", codes_of=None, groups: int = 1, axis: int = -1) -> None:
    """What the projection in returned and the module returned, with codes by the library's own way back."""
    entered = []
    if hasattr(module, "project_in"):
        on_return(module.project_in, lambda args, kwargs, output: entered.append(output.detach()))

    def outer(args, kwargs, output):
        z = flat(entered.pop()) if entered else flat(args[0], axis)
        indices = output[1].flatten()
        codes = codes_of(module, indices) if codes_of else module.implicit_codebook[indices.long()]
        seen(name, Tokens(indices, z.reshape(len(indices), -1), codes))

    on_return(module, outer)


def fsq(shape=(2, 10, 3), **settings) -> Stranger:
    return Stranger(
        lambda: FSQ(**{"levels": LEVELS, **settings}),
        shape,
        spy_ends,
        lambda module: {"vq": module.implicit_codebook},
        levels=tuple(LEVELS),
    )


def rotated(module: nn.Module, indices: Tensor) -> Tensor:
    return module.implicit_codebook[indices.long()] @ module.orthogonal_rot.T


def perturbed(module: nn.Module, indices: Tensor) -> Tensor:
    """By hand: the middles of the bins, at unit variance."""
    digits = module.indices_to_level_indices(indices.long()).float()
    return ((digits + 0.5) / module._levels - 0.5) / 0.28867513459481287


def learned(module: nn.Module, indices: Tensor) -> Tensor:
    digits = (indices.unsqueeze(-1) // module._basis) % module._levels
    return torch.stack([values.detach()[digits[:, axis]] for axis, values in enumerate(module.values_per_latent)], -1)


def spy_latent(module: nn.Module, seen: Seen) -> None:
    """By hand: the nearest value on each axis."""

    def tell(args, kwargs, output):
        z = flat(output)
        values = module.values_per_latent
        digits = torch.stack(
            [(z[:, axis, None] - each.detach()).abs().argmin(1) for axis, each in enumerate(values)], 1
        )
        indices = (digits * module._basis).sum(1)
        seen("vq", Tokens(indices, z, learned(module, indices)))

    on_return(module.project_in, tell)


def spy_layers(module: nn.Module, seen: Seen, prefix: str = "vq") -> None:
    for number, layer in enumerate(module.layers):
        codes_of = None if hasattr(layer, "implicit_codebook") else lambda module, indices: module.codebook[indices]
        spy_ends(layer, seen, f"{prefix}.layers.{number}", codes_of)


def layer_tables(module: nn.Module, prefix: str = "vq") -> dict[str, Tensor]:
    layers = enumerate(module.layers)
    return {
        f"{prefix}.layers.{number}": layer.implicit_codebook if hasattr(layer, "implicit_codebook") else layer.codebook
        for number, layer in layers
    }


def spy_groups(module: nn.Module, seen: Seen) -> None:
    for group, rvq in enumerate(module.rvqs):
        spy_layers(rvq, seen, f"vq.rvqs.{group}")


def group_tables(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: table
        for group, rvq in enumerate(module.rvqs)
        for name, table in layer_tables(rvq, f"vq.rvqs.{group}").items()
    }


def padded() -> Tensor:
    return torch.arange(10) < torch.tensor([[7], [3]])


def spy_padded(module: nn.Module, seen: Seen) -> None:
    def tell(name, tokens):
        seen(name, tokens._replace(kept=padded().flatten()))

    spy_ends(module, tell, codes_of=lambda module, indices: module.codebook[indices])


def lfq(shape=(2, 10, 4), name="vq", codes_of=None, **settings) -> Stranger:
    codes_of = codes_of or (lambda module, indices: module.codebook[indices])
    bits = settings.get("dim", 4)
    return Stranger(
        lambda: LFQ(**{"codebook_size": 16, "dim": 4, **settings}),
        shape,
        lambda module, seen: spy_ends(module, seen, name, codes_of),
        lambda module: {name: codes_of(module, torch.arange(16))},
        levels=(2,) * min(bits, 4),
    )


def spherical(module: nn.Module, indices: Tensor) -> Tensor:
    return module.codebook[indices] / 2


def spy_sim(module: nn.Module, seen: Seen, name: str = "vq", axis: int = -1) -> None:
    def outer(args, kwargs, output):
        indices = output[1].flatten()
        seen(name, Tokens(indices, flat(args[0], axis), module.codebook.detach()[indices]))

    on_return(module, outer)


def sim(shape=(2, 10, 4), axis=-1, **settings) -> Stranger:
    return Stranger(
        lambda: SimVQ(dim=4, codebook_size=16, **settings),
        shape,
        lambda module, seen: spy_sim(module, seen, axis=axis),
        lambda module: {"vq": module.codebook.detach()},
    )


def plain(kind, config, shape=(2, 10, 3), axis=-1) -> Stranger:
    """A module without projections whose codes are in its buffer."""
    return Stranger(
        lambda: kind(config),
        shape,
        lambda module, seen: spy_ends(module, seen, "vq", lambda module, indices: module.codebook[indices], 1, axis),
        lambda module: {"vq": module.codebook},
        levels=tuple(LEVELS),
    )


def spy_evo(module: nn.Module, seen: Seen) -> None:
    spy_ends(module.lfq, seen, "vq.lfq", lambda module, indices: module.codebook[indices])


def spy_ace(module: nn.Module, seen: Seen) -> None:
    """What its own quantizing step was given, and the codes by its own way back."""
    given, quantize = [], module._quantize

    def spied(x):
        given.append(flat(x))
        return quantize(x)

    module._quantize = spied

    def outer(args, kwargs, output):
        for number, indices in enumerate(output[1].unbind(-1)):
            seen(
                f"vq.layer{number}",
                Tokens(indices.flatten(), given.pop(0), module._indices_to_codes(indices.flatten())),
            )

    on_return(module, outer)


LEVELLED = {
    "fsq": fsq(),
    "fsq projected": fsq((2, 10, 8), dim=8),
    "fsq images": fsq((2, 3, 3, 3)),
    "fsq two codebooks": fsq((2, 10, 6), num_codebooks=2),
    "fsq symmetric": fsq(preserve_symmetry=True),
    "fsq noisy": fsq((2, 30, 3), preserve_symmetry=True, noise_dropout=0.5),
    "fsq rotated": Stranger(
        lambda: FSQ(levels=[5, 5, 5], orthogonal_rotation=True),
        (2, 10, 3),
        lambda module, seen: spy_ends(module, seen, codes_of=rotated),
        lambda module: {"vq": rotated(module, torch.arange(125))},
        levels=(5, 5, 5),
    ),
    "fsq without indices": Stranger(
        lambda: FSQ(levels=LEVELS, return_indices=False),
        (2, 10, 3),
        lambda module, seen: on_return(
            module,
            lambda args, kwargs, output: seen(
                "vq", Tokens(module.codes_to_indices(output[0].detach()).flatten(), flat(args[0]), flat(output[0]))
            ),
        ),
        lambda module: {"vq": module._indices_to_codes(torch.arange(60))},
        levels=tuple(LEVELS),
    ),
    "residual fsq": Stranger(
        lambda: ResidualFSQ(dim=8, levels=LEVELS, num_quantizers=2), (2, 10, 8), spy_layers, layer_tables
    ),
    "residual fsq dropout": Stranger(
        lambda: ResidualFSQ(dim=8, levels=LEVELS, num_quantizers=3, quantize_dropout=True),
        (2, 10, 8),
        spy_layers,
        layer_tables,
    ),
    "grouped residual fsq": Stranger(
        lambda: GroupedResidualFSQ(dim=8, groups=2, levels=LEVELS, num_quantizers=2),
        (2, 10, 8),
        spy_groups,
        group_tables,
    ),
    "fsp": Stranger(
        lambda: FSP(levels=LEVELS, dim=8),
        (2, 10, 8),
        lambda module, seen: spy_ends(module, seen, codes_of=perturbed),
        lambda module: {"vq": perturbed(module, torch.arange(60))},
        levels=tuple(LEVELS),
    ),
    "latent quantize": Stranger(
        lambda: LatentQuantize(levels=LEVELS, dim=8),
        (2, 8, 10),
        spy_latent,
        lambda module: {"vq": learned(module, torch.arange(60))},
        levels=tuple(LEVELS),
    ),
    "lfq": lfq(),
    "lfq images": lfq((2, 4, 3, 3)),
    "lfq projected": lfq((2, 10, 8), dim=8),
    "lfq spherical": lfq(codes_of=spherical, spherical=True),
    "lfq two codebooks": lfq((2, 10, 8), dim=8, num_codebooks=2),
    "lfq mask": Stranger(
        lambda: LFQ(codebook_size=16, dim=4),
        (2, 10, 4),
        spy_padded,
        lambda module: {"vq": module.codebook},
        lambda vq, x: vq(x, mask=padded()),
        levels=(2,) * 4,
    ),
    "residual lfq": Stranger(
        lambda: ResidualLFQ(dim=8, codebook_size=16, num_quantizers=2), (2, 10, 8), spy_layers, layer_tables
    ),
    "grouped residual lfq": Stranger(
        lambda: GroupedResidualLFQ(dim=16, groups=2, codebook_size=16, num_quantizers=2),
        (2, 10, 16),
        spy_groups,
        group_tables,
    ),
    "evo lfq": Stranger(
        lambda: EvoLFQ(nn.Linear(4, 4), nn.Linear(4, 4), dim=4),
        (2, 10, 4),
        spy_evo,
        lambda module: {"vq.lfq": module.lfq.codebook},
        levels=(2,) * 4,
    ),
    "binary mapper": Stranger(lambda: BinaryMapper(bits=4), (2, 10, 4), refused="samples bits"),
    "sim": sim(),
    "sim without rotation": sim(rotation_trick=False),
    "sim channels first": sim((2, 4, 10), 1, channel_first=True),
    "sim of a network": Stranger(
        lambda: SimVQ(
            dim=4,
            codebook_size=16,
            frozen_codebook_dim=3,
            codebook_transform=nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)),
        ),
        (2, 10, 4),
        spy_sim,
        lambda module: {"vq": module.codebook.detach()},
    ),
    "residual sim": Stranger(
        lambda: ResidualSimVQ(dim=4, num_quantizers=2, codebook_size=16),
        (2, 10, 4),
        lambda module, seen: [spy_sim(layer, seen, f"vq.layers.{n}") for n, layer in enumerate(module.layers)],
        lambda module: {f"vq.layers.{n}": layer.codebook.detach() for n, layer in enumerate(module.layers)},
    ),
    "diffusers fsq": Stranger(
        lambda: FSQRegularizer(levels=LEVELS, dim=8),
        (2, 8, 3, 3),
        spy_ends,
        lambda module: {"vq": module.implicit_codebook},
        levels=tuple(LEVELS),
    ),
    "diffusers ace step": Stranger(
        lambda: _AceStepResidualFSQ(dim=8, levels=LEVELS, num_quantizers=2),
        (2, 10, 8),
        spy_ace,
        lambda module: {f"vq.layer{n}": module._indices_to_codes(torch.arange(60)) for n in range(2)},
    ),
    "xcodec2 fsq": plain(Xcodec2FiniteScalarQuantization, Xcodec2Config(quantization_levels=LEVELS)),
    "neucodec fsq": plain(NeuCodecFiniteScalarQuantization, NeuCodecConfig(quantization_levels=LEVELS)),
}
