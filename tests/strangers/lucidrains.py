"""vector_quantize_pytorch, every class and configuration that changes how it is read."""

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import (
    GroupedResidualVQ,
    HierarchicalVQ,
    RandomProjectionQuantizer,
    ResidualVQ,
    VectorQuantize,
)

from strangers.base import Seen, Stranger, Tokens, flat, on_return

K, D = 16, 4


def spy_inner(module: nn.Module, seen: Seen, name: str = "vq") -> None:
    """What the inner codebook of one quantizer was given and returned in each call of that quantizer, the last time."""
    latest, heads = [], module.heads if module.separate_codebook_per_head else 1

    def inner(args, kwargs, output):
        latest[:] = [(args[0].detach().clone(), *(leaf.detach().clone() for leaf in output[:2]), kwargs.get("mask"))]

    def outer(args, kwargs, output):
        z, codes, indices, mask = latest.pop()
        if heads > 1:
            for head in range(heads):
                tokens = Tokens(indices[head].flatten(), flat(z[head]), flat(codes[head]))
                seen(f"{name}.head{head}", tokens)
            return
        copies = indices.numel() * z.shape[-1] // z.numel()
        z = flat(z).repeat_interleave(copies, 0)
        kept = None
        if mask is not None:
            by_token, copies = kwargs.get("topk") is not None, indices.numel() // mask.numel()
            kept = (
                mask.unsqueeze(-1).expand(-1, -1, copies) if by_token else mask.repeat_interleave(copies, 0)
            ).flatten()
        # The library's own account of the indices, which has -1 where it dropped a token:
        told = output[1].flatten()
        assert torch.equal(
            told[told >= 0].bincount(minlength=K),
            indices.flatten()[slice(None) if kept is None else kept].bincount(minlength=K),
        )
        seen(name, Tokens(indices.flatten(), z, flat(codes), kept))

    on_return(module._codebook, inner)
    on_return(module, outer)


def raw_tables(module: nn.Module, name: str = "vq") -> dict[str, Tensor]:
    embed = module._codebook.embed.detach()
    return {name: embed[0]} if len(embed) == 1 else {f"{name}.head{head}": table for head, table in enumerate(embed)}


def vq(shape=(2, 10, D), call=None, tables=raw_tables, **settings) -> Stranger:
    def build():
        made = {name: value() if name == "vq_bridge" else value for name, value in settings.items()}
        return VectorQuantize(**{"dim": D, "codebook_size": K, **made})

    return Stranger(build, shape, spy_inner, tables, call)


def effective(module: nn.Module) -> dict[str, Tensor]:
    """The codes that an affine image or a bridge makes, by the library's own formula in its Codebook.forward."""
    inner = module._codebook
    embed = inner.embed.detach()
    if inner.vq_bridge is not None:
        embed = inner.vq_bridge(embed).detach()
    if inner.affine_param:
        stds = [variance.clamp(min=1e-5).sqrt() for variance in (inner.batch_variance, inner.codebook_variance)]
        embed = (embed - inner.codebook_mean) * (stds[0] / stds[1]) + inner.batch_mean
    return {"vq": embed[0]}


def residual_layers(module: nn.Module, prefix: str = "vq") -> dict[str, nn.Module]:
    return {f"{prefix}.layers.{number}": layer for number, layer in enumerate(module.layers)}


def spy_residual(module: nn.Module, seen: Seen) -> None:
    for name, layer in residual_layers(module).items():
        spy_inner(layer, seen, name)


def residual_tables(module: nn.Module) -> dict[str, Tensor]:
    return {name: layer._codebook.embed.detach()[0] for name, layer in residual_layers(module).items()}


def first_table(module: nn.Module) -> dict[str, Tensor]:
    return {"vq.layers.0": residual_tables(module)["vq.layers.0"]}


def residual(tables=residual_tables, spy=spy_residual, call=None, **settings) -> Stranger:
    def build():
        return ResidualVQ(**{"dim": D, "codebook_size": K, "num_quantizers": 3, **settings})

    return Stranger(build, (2, 10, D), spy, tables, call)


def spy_beams(module: nn.Module, seen: Seen) -> None:
    """The best beam by the library's own account: its indices in the output, and the residuals that lead to them."""
    before, entered = [], []
    module.register_forward_pre_hook(
        lambda _, args: before.append([layer._codebook.embed.detach()[0].clone() for layer in module.layers])
    )
    module.project_in.register_forward_hook(lambda _, args, output: entered.append(flat(output)))

    def outer(args, kwargs, output):
        tables, rest = before.pop(), entered.pop()
        for (name, _), table, indices in zip(
            residual_layers(module).items(), tables, output[1].unbind(-1), strict=True
        ):
            if (indices < 0).all():
                continue
            codes = table[indices.flatten().clamp(min=0)]
            seen(name, Tokens(indices.flatten(), rest, codes))
            rest = rest - codes

    on_return(module, outer)


def spy_grouped(module: nn.Module, seen: Seen) -> None:
    for group, rvq in enumerate(module.rvqs):
        for name, layer in residual_layers(rvq, f"vq.rvqs.{group}").items():
            spy_inner(layer, seen, name)


def grouped_tables(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: layer._codebook.embed.detach()[0]
        for group, rvq in enumerate(module.rvqs)
        for name, layer in residual_layers(rvq, f"vq.rvqs.{group}").items()
    }


def spy_projection(module: nn.Module, seen: Seen) -> None:
    """By hand: the normalised projections of the normalised input, and the indices that are returned."""

    def outer(args, kwargs, output):
        x = nn.functional.layer_norm(args[0].detach(), args[0].shape[-1:])
        x = torch.cat([x @ projection for projection in module.rand_projs], -1)
        parts = (x @ module.vq.project_in.weight.detach().T + module.vq.project_in.bias.detach()).chunk(2, -1)
        for head, part in enumerate(parts):
            z = nn.functional.normalize(part, dim=-1)
            indices = output[..., head].flatten()
            seen(f"vq.vq.head{head}", Tokens(indices, flat(z), module.vq._codebook.embed[head][indices]))

    on_return(module, outer)


def mask(lengths: tuple[int, ...]) -> Tensor:
    return torch.arange(10) < torch.tensor(lengths).unsqueeze(1)


LUCIDRAINS = {
    "ema": vq(),
    "ema without rotation": vq(rotation_trick=False),
    "kmeans": vq(kmeans_init=True),
    "learnable": vq(learnable_codebook=True, ema_update=False),
    "cosine images": vq((2, D, 5, 5), use_cosine_sim=True, accept_image_fmap=True),
    "cosine": vq(use_cosine_sim=True),
    "channels first": vq((2, D, 10), channel_last=False),
    "projected": vq(codebook_dim=3),
    "heads shared": vq(heads=2, codebook_dim=2),
    "heads shared projected": vq(heads=2, codebook_dim=3),
    "heads separate": vq(heads=2, codebook_dim=2, separate_codebook_per_head=True),
    "mask": vq(call=lambda vq, x: vq(x, mask=mask((7, 3)))),
    "lens": vq(call=lambda vq, x: vq(x, lens=torch.tensor([7, 3]))),
    "one token": vq((6, D)),
    "in place": vq(
        learnable_codebook=True, ema_update=False, in_place_codebook_optimizer=lambda p: torch.optim.SGD(p, lr=0.1)
    ),
    "affine": vq(tables=effective, affine_param=True),
    "bridge": vq(tables=effective, vq_bridge=lambda: nn.Sequential(nn.Linear(D, 8), nn.SiLU(), nn.Linear(8, D))),
    "top k": vq(call=lambda vq, x: vq(x, topk=3)),
    "top k masked": vq(call=lambda vq, x: vq(x, topk=3, mask=mask((7, 3)))),
    "stochastic": vq(stochastic_sample_codes=True),
    "directional": vq(directional_reparam=True, threshold_ema_dead_code=2),
    "threshold": vq(threshold_ema_dead_code=2),
    "residual": residual(),
    "residual shared": residual(shared_codebook=True),
    "residual dropout": residual(quantize_dropout=True),
    "residual implicit": residual(tables=first_table, implicit_neural_codebook=True),
    "residual beams": residual(spy=spy_beams, beam_size=2),
    "residual beams shared": residual(spy=spy_beams, beam_size=2, shared_codebook=True),
    "residual beams projected": residual(spy=spy_beams, beam_size=2, codebook_dim=3),
    "residual beams masked": residual(spy=spy_beams, beam_size=2, call=lambda vq, x: vq(x, mask=mask((7, 3)))),
    "residual beams dropped": residual(spy=spy_beams, beam_size=2, quantize_dropout=True),
    "residual projected": residual(codebook_dim=3),
    "residual masked": residual(call=lambda vq, x: vq(x, mask=mask((7, 3)))),
    "residual cosine": residual(use_cosine_sim=True),
    "residual diveq": residual(diveq=True),
    "grouped residual": Stranger(
        lambda: GroupedResidualVQ(dim=2 * D, groups=2, codebook_size=K, num_quantizers=2),
        (2, 10, 2 * D),
        spy_grouped,
        grouped_tables,
    ),
    "hierarchical": Stranger(
        lambda: HierarchicalVQ(dim=D, codebook_size=K, scales=(2, 4, 8)),
        (2, D, 8),
        lambda module, seen: spy_inner(module.vq, seen, "vq.vq"),
        lambda module: raw_tables(module.vq, "vq.vq"),
    ),
    "hierarchical separate": Stranger(
        lambda: HierarchicalVQ(dim=D, codebook_size=K, scales=(2, 4, 8), shared_codebook=False),
        (2, D, 8),
        lambda module, seen: [spy_inner(each, seen, f"vq.vqs.{n}") for n, each in enumerate(module.vqs)],
        lambda module: {f"vq.vqs.{n}": each._codebook.embed.detach()[0] for n, each in enumerate(module.vqs)},
    ),
    "random projection": Stranger(
        lambda: RandomProjectionQuantizer(dim=D, codebook_size=K, codebook_dim=3, num_codebooks=2),
        (2, 10, D),
        spy_projection,
        lambda module: raw_tables(module.vq, "vq.vq"),
    ),
}
