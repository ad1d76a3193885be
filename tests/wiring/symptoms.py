"""The faults measured by hand, without the lint: each function gives a question that is answered by a set-up."""

import copy
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from wiring.base import SetUp, tokens

Symptom = Callable[[SetUp], bool]


def step(setup: SetUp) -> SetUp:
    """A copy of the set-up after one training step."""
    model, batch, loss, optimizer = copy.deepcopy((setup.model, setup.batch, setup.loss, setup.optimizer))
    optimizer.zero_grad()
    loss(model, batch).backward()
    optimizer.step()
    return SetUp(model, batch, loss, optimizer)


def calls(setup: SetUp, path: str, run: Callable[[nn.Module], Any]) -> list[tuple[tuple, Any]]:
    """What the module at ``path`` was given and returned while ``run`` ran on a copy."""
    model, seen = copy.deepcopy(setup.model), []
    attrgetter(path)(model).register_forward_hook(lambda _, args, output: seen.append((args, output)))
    run(model)
    return seen


def first(output: Any) -> Tensor:
    """The quantized latents in what a quantizer returned."""
    return output if isinstance(output, Tensor) else first(output[0])


def differ(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def gradient_free(path: str) -> Symptom:
    """The loss gives the tensor at ``path`` no gradient: none, or exactly zero."""

    def symptom(setup: SetUp) -> bool:
        model = copy.deepcopy(setup.model)
        setup.loss(model, setup.batch).backward()
        gradient = attrgetter(path)(model).grad
        return gradient is None or not gradient.any()

    return symptom


def decoder_cut_off(setup: SetUp) -> bool:
    """The reconstruction gives no parameter in front of the quantizer a gradient."""
    model = copy.deepcopy(setup.model)
    given = torch.autograd.grad(model(setup.batch)[0].square().sum(), [*model.encoder.parameters()], allow_unused=True)
    return all(each is None or not each.any() for each in given)


def gradient_of(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def weights(setup: SetUp, path: str, table: str) -> tuple[float, float]:
    """How much the (first) quantizer's loss weighs on the codes, and how much on the latents, in units of mse(z, e)."""
    model, entered = copy.deepcopy(setup.model), []
    quantizer = attrgetter(path)(model)

    def keep(_, args):
        args[0].retain_grad()
        entered.append(args[0])

    quantizer.register_forward_pre_hook(keep)
    model(setup.batch)[1].flatten()[0].backward()
    codes = attrgetter(table)(model)
    latents = entered[0]
    z, gradient = tokens(latents.detach()), tokens(gradient_of(latents))
    nearest = torch.cdist(z, codes.detach()).argmin(1)
    away = 2 * (z - codes.detach()[nearest]) / z.numel()
    on_codes = gradient_of(codes)
    expected = torch.zeros_like(codes).index_add_(0, nearest, -away)
    return float((on_codes * expected).sum() / expected.square().sum()), float(
        (gradient * away).sum() / away.square().sum()
    )


def heavier_on_latents(path: str, table: str) -> Symptom:
    def symptom(setup: SetUp) -> bool:
        on_codes, on_latents = weights(setup, path, table)
        return on_latents > on_codes > 0

    return symptom


def no_commitment(path: str, table: str) -> Symptom:
    return lambda setup: weights(setup, path, table)[1] < 1e-6


def repelled_codes(path: str, table: str) -> Symptom:
    return lambda setup: weights(setup, path, table)[0] < 0


def loss_on_output(path: str, table: str) -> Symptom:
    """Nothing moves the codes, and the latents feel a codebook loss that pushes them away."""

    def symptom(setup: SetUp) -> bool:
        on_codes, on_latents = weights(setup, path, table)
        return on_codes == 0 and on_latents < 0

    return symptom


def another_weight(path: str, table: str) -> Symptom:
    """The commitment weighs another share of the codebook term than the model says."""

    def symptom(setup: SetUp) -> bool:
        on_codes, on_latents = weights(setup, path, table)
        return abs(on_latents / on_codes - setup.model.commitment_weight) > 1e-3

    return symptom


def never_called(path: str) -> Symptom:
    """The loss does not call the module, or never in training mode."""

    def symptom(setup: SetUp) -> bool:
        modes: list[bool] = []
        model = copy.deepcopy(setup.model)
        attrgetter(path)(model).register_forward_hook(lambda module, *_: modes.append(module.training))
        setup.loss(model, setup.batch)
        return not any(modes)

    return symptom


def train_unlike_eval(path: str) -> Symptom:
    """Three steps on, the same latents are quantized to other values in eval mode than in training."""

    def symptom(setup: SetUp) -> bool:
        for _ in range(3):
            setup = step(setup)
        (latents, *_), training = calls(setup, path, lambda model: model(setup.batch))[0]
        # The calls work on copies, so moving averages start from the same codes twice.
        module = copy.deepcopy(attrgetter(path)(setup.model)).eval()
        return differ(first(training), first(module(latents)))

    return symptom


def lossy_round_trip(path: str, entry: Callable[[nn.Module, Tensor], Tensor], steps: int = 1) -> Symptom:
    """``entry(quantizer, indices)`` (N, D) are not the vectors that the eval forward gave the decoder."""

    def symptom(setup: SetUp) -> bool:
        for _ in range(steps):
            setup = step(setup)
        model = copy.deepcopy(setup.model).eval()
        _, output = calls(setup._replace(model=model), path, lambda model: model(setup.batch))[0]
        entries = entry(attrgetter(path)(model), whole(output).flatten()).detach()
        q = first(output)
        return differ(entries, tokens(q) if q.shape[1] == entries.shape[1] else q.reshape(entries.shape))

    return symptom


def whole(output: Any) -> Tensor:
    """The indices in what a quantizer returned."""
    return next(leaf for leaf in leaves(output) if not leaf.is_floating_point())


def leaves(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [leaf for part in output for leaf in leaves(part)] if isinstance(output, list | tuple) else []


def misassigned(path: str, table: str) -> Symptom:
    """More than one token in a hundred is not at its nearest code, in double precision."""

    def symptom(setup: SetUp) -> bool:
        (latents, *_), output = calls(setup, path, lambda model: model(setup.batch))[0]
        nearest = torch.cdist(tokens(latents).double(), attrgetter(table)(setup.model).double()).argmin(1)
        indices = whole(output).flatten()
        return bool((nearest != indices).float().mean() > 0.01)

    return symptom


def averages_apart(codes: str, sums: str, counts: str) -> Symptom:
    """The codes of the start, or of a first step that only had to set them, are not sum over count."""

    def symptom(setup: SetUp) -> bool:
        model = setup.model
        e, m, n = (attrgetter(name)(model).detach() for name in (codes, sums, counts))
        return bool((n <= 0).any()) or differ(e, m / n[..., None])

    return symptom


def after_first_call(path: str, init: str, symptom: Symptom) -> Symptom:
    """The symptom once ``init`` of the module at ``path`` has set the codes from the first latents."""

    def measured(setup: SetUp) -> bool:
        (latents, *_), _ = calls(setup, path, lambda model: model(setup.batch))[0]
        fresh = copy.deepcopy(setup.model)
        getattr(attrgetter(path)(fresh), init)(latents.reshape(-1, latents.shape[-1]))
        return symptom(setup._replace(model=fresh))

    return measured


def revival_lost(path: str) -> Symptom:
    """A step leaves the same codes whether the codebook at ``path`` revives its rare codes or not, and it has some."""

    def codebook_after(setup: SetUp, threshold: float) -> nn.Module:
        model, optimizer = copy.deepcopy((setup.model, setup.optimizer))
        attrgetter(path)(model).threshold_ema_dead_code = threshold
        torch.manual_seed(0)
        return attrgetter(path)(step(setup._replace(model=model, optimizer=optimizer)).model)

    def symptom(setup: SetUp) -> bool:
        threshold = attrgetter(path)(setup.model).threshold_ema_dead_code
        with_it, without_it = (codebook_after(setup, each) for each in (threshold, 0.0))
        assert (without_it.cluster_size < threshold).any()
        return torch.equal(with_it.embed, without_it.embed)

    return symptom


def deaf_commitment(layer: int) -> Symptom:
    """The loss of one residual layer gives the encoder no gradient."""

    def symptom(setup: SetUp) -> bool:
        model = copy.deepcopy(setup.model)
        given = torch.autograd.grad(
            model(setup.batch)[1].flatten()[layer], [*model.encoder.parameters()], allow_unused=True
        )
        return all(each is None or float(each.abs().max()) < 1e-7 for each in given)

    return symptom


def without_effect(path: str, setting: str) -> Symptom:
    """The gradients of the loss are the same with ten times the setting of the module at ``path``."""

    def gradients(model: nn.Module, setup: SetUp) -> list[Tensor]:
        torch.manual_seed(0)
        setup.loss(model, setup.batch).backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    def symptom(setup: SetUp) -> bool:
        before, after = copy.deepcopy(setup.model), copy.deepcopy(setup.model)
        module = attrgetter(path)(after)
        setattr(module, setting, 10 * getattr(module, setting))
        pairs = zip(gradients(before, setup), gradients(after, setup), strict=True)
        return all(torch.allclose(a, b, atol=1e-9) for a, b in pairs)

    return symptom


def gradients_left(setup: SetUp) -> bool:
    """The forward alone leaves gradients on the encoder."""
    model = copy.deepcopy(setup.model)
    model(setup.batch)
    return any(parameter.grad is not None and parameter.grad.any() for parameter in model.encoder.parameters())


def lengths_matter_to_the_loss_alone(path: str, table: str) -> Symptom:
    """Codes of other lengths leave every index as it is and change what the decoder gets."""

    def symptom(setup: SetUp) -> bool:
        longer = copy.deepcopy(setup.model)
        with torch.no_grad():
            attrgetter(table)(longer).mul_(torch.linspace(1, 3, len(attrgetter(table)(longer)))[:, None])
        outputs = [
            calls(setup._replace(model=model), path, lambda model: model(setup.batch))[0][1]
            for model in (setup.model, longer)
        ]
        (q, i), (other_q, other_i) = ((first(each), whole(each)) for each in outputs)
        return torch.equal(i, other_i) and differ(q, other_q)

    return symptom


def motionless(path: str) -> Symptom:
    """The tensor at ``path`` has a gradient, and an optimizer step does not move it."""

    def symptom(setup: SetUp) -> bool:
        after = step(setup)
        table = attrgetter(path)
        return bool(table(after.model).grad.any()) and torch.equal(table(setup.model), table(after.model))

    return symptom


def decaying(path: str) -> Symptom:
    """A step shrinks the codes that no token was assigned to."""

    def symptom(setup: SetUp) -> bool:
        after = step(setup)
        before, now = attrgetter(path)(setup.model), attrgetter(path)(after.model)
        idle = ~now.grad.any(1)
        return bool(idle.any()) and bool((now[idle].norm(dim=1) < 0.9999 * before[idle].norm(dim=1)).all())

    return symptom
