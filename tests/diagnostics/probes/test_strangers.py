"""Every stranger: its numbers as computed by hand from what it says itself, and nothing of it changed by looking."""

import numpy as np
import pytest
import torch
from records import Records
from strangers import STRANGERS, Host, Stranger, Tokens, loss
from strangers.watching import readings_of
from torch.utils._python_dispatch import TorchDispatchMode

from vqtool.diagnostics import CodebookMonitor, InputError, find_codebooks

READ = {name: stranger for name, stranger in STRANGERS.items() if stranger.refused is None}


def totals(tokens: list[Tokens]) -> dict[int, tuple[int, float]]:
    """Hits of each code that was hit, and the mean squared distance of the tokens that hit it, token by token."""
    sums: dict[int, list[float]] = {}
    for call in tokens:
        kept = call.indices >= 0 if call.kept is None else call.kept & (call.indices >= 0)
        for index, z, q in zip(call.indices[kept].tolist(), call.latents[kept], call.codes[kept], strict=True):
            sums.setdefault(index, []).append((z.double() - q.double()).square().sum().item())
    return {index: (len(distances), sum(distances) / len(distances)) for index, distances in sorted(sums.items())}


def same(one: dict[int, tuple[int, float]], other: dict[int, tuple[int, float]]) -> None:
    assert {code: hits for code, (hits, _) in one.items()} == {code: hits for code, (hits, _) in other.items()}
    distances = [[distortion for _, distortion in each.values()] for each in (one, other)]
    np.testing.assert_allclose(*distances, rtol=1e-4, atol=1e-6)


def of_record(record) -> dict[int, tuple[int, float]]:
    return {code: (record.hits[code], record.distortion[code]) for code in np.flatnonzero(record.hits).tolist()}


def as_tokens(reading) -> Tokens:
    return Tokens(reading.indices, reading.latents, reading.codes, reading.mask)


def spied(stranger: Stranger, model: Host) -> dict[str, list[Tokens]]:
    seen: dict[str, list[Tokens]] = {}
    stranger.spy(model.vq, lambda name, tokens: seen.setdefault(name, []).append(tokens))
    return seen


@pytest.mark.parametrize("name", READ)
def test_what_is_read_is_what_a_loop_counts(name):
    stranger = READ[name]
    model = stranger.host()
    seen, codebooks = spied(stranger, model), find_codebooks(model)
    readings, _ = readings_of(codebooks)
    sink, optimizer = Records(), torch.optim.SGD(model.parameters(), lr=1e-3)
    if all(codebook.codes() is not None for codebook in codebooks.values()):
        CodebookMonitor(model, optimizer, [sink], every=1)
    before: dict[str, torch.Tensor] = {}
    for batch in stranger.batches():
        seen.clear(), readings.clear(), sink.records.clear(), optimizer.zero_grad()
        loss(model(batch)).backward()
        tables = {codebook: table.clone() for codebook, table in stranger.tables(model.vq).items()}
        now = {codebook: codebooks[codebook].codes().clone() for codebook in tables}
        optimizer.step()
        assert seen
        assert readings.keys() == seen.keys()
        records = {record.codebook: record for record in sink.records}
        for codebook, tokens in seen.items():
            by_hand = totals(tokens)
            same(totals([as_tokens(reading) for reading in readings[codebook]]), by_hand)
            if records:
                same(of_record(records[codebook]), by_hand)
        for codebook, table in tables.items():
            torch.testing.assert_close(now[codebook], table, rtol=1e-5, atol=1e-6)
            if codebook in records:
                np.testing.assert_allclose(records[codebook].norm, table.norm(dim=1), rtol=1e-4, atol=1e-6)
            if codebook in records and codebook in before:
                drift = (table - before[codebook]).norm(dim=1)
                np.testing.assert_allclose(records[codebook].drift, drift, rtol=1e-3, atol=1e-5)
        before = {name: table for name, table in tables.items() if name in records}  # from its first forward on
    assert tables.keys() == {name for name, codebook in codebooks.items() if codebook.codes() is not None}


@pytest.mark.parametrize("name", [name for name, stranger in READ.items() if stranger.levels])
def test_implicit_codes_tell_their_levels(name):
    (codebook,) = find_codebooks(READ[name].host()).values()
    assert codebook.levels == READ[name].levels
    assert codebook.size == np.prod(READ[name].levels)


@pytest.mark.parametrize("name", [name for name, stranger in STRANGERS.items() if stranger.refused])
def test_what_cannot_be_read_is_refused_in_one_line(name):
    stranger = STRANGERS[name]
    with pytest.raises(InputError, match=stranger.refused) as refusal:
        find_codebooks(stranger.host())
    assert "\n" not in str(refusal.value)


def trained(stranger: Stranger, attach: bool) -> dict[str, object]:
    """All that four steps leave behind, with the instrument attached or without."""
    model = stranger.host()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    sink = Records()
    monitor = CodebookMonitor(model, optimizer, [sink], every=2) if attach else None
    losses, gradients = [], []
    for batch in stranger.batches(4):
        optimizer.zero_grad()
        (total := loss(model(batch))).backward()
        losses.append(total)
        gradients += [None if each.grad is None else each.grad.clone() for each in model.parameters()]
        optimizer.step()
    if monitor is not None:
        monitor.close()
        assert sink.records or sink.rows
    modules = dict(model.named_modules())
    return {
        "losses": losses,
        "gradients": gradients,
        "random": torch.get_rng_state(),
        "state": model.state_dict(),
        "buffers": dict(model.named_buffers()),
        "attributes": {path: sorted(vars(module)) for path, module in modules.items()},
        "hooks": {path: len(module._forward_hooks) for path, module in modules.items()},
        "optimizer hooks": [len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)],
    }


@pytest.mark.parametrize("name", READ)
def test_attaching_changes_not_a_bit_and_nothing_is_left_behind(name):
    attached, alone = (trained(READ[name], attach) for attach in (True, False))
    exactly = {"rtol": 0, "atol": 0, "equal_nan": True}
    for part in ("losses", "random", "state", "buffers"):
        torch.testing.assert_close(attached[part], alone[part], **exactly)
    assert attached["attributes"] == alone["attributes"]
    assert attached["hooks"] == alone["hooks"]
    assert attached["optimizer hooks"] == alone["optimizer hooks"]
    for one, other in zip(attached["gradients"], alone["gradients"], strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("name", READ)
def test_a_renamed_copy_is_recognised_too(name):
    """Who copies a quantizer into a repository names the class anew; torch's own classes stay what they are."""
    model = READ[name].host()
    original = list(find_codebooks(model))
    for module in model.vq.modules():
        if not type(module).__module__.startswith("torch."):
            module.__class__ = type("Copied", (type(module),), {"__module__": "somewhere.else"})
    assert list(find_codebooks(model)) == original
    readings, _ = readings_of(find_codebooks(model))
    model(READ[name].batches()[0])
    assert readings


@pytest.mark.parametrize("name", [name for name in READ if "hierarchical" not in name])  # it knows no autocast
def test_coarse_arithmetic_is_no_reason_to_refuse(name):
    read = {}
    for coarse in (False, True):
        model = READ[name].host()
        readings, _ = readings_of(find_codebooks(model))
        with torch.autocast("cpu", torch.bfloat16, enabled=coarse):
            model(READ[name].batches()[0])
        read[coarse] = {codebook: [len(reading.indices) for reading in mine] for codebook, mine in readings.items()}
        assert all(reading.codes.dtype == torch.float32 for mine in readings.values() for reading in mine)
    assert read[True] == read[False]


class Waiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device, or a device for the host."""

    waits = (
        "_local_scalar_dense",
        "is_nonzero",
        "nonzero",
        "equal",
        "unique",
        "_unique2",
        "lift_fresh",
        "masked_select",
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(each is not None and each.dtype == torch.bool for each in args[1])
        assert name not in self.waits, f"{name} waits"
        assert not by_mask, "indexing by a mask waits"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", READ)
def test_after_the_first_call_nothing_waits_for_the_device(name):
    model = READ[name].host()
    first = READ[name].batches()[0]
    codebooks = find_codebooks(model)
    _, handles = readings_of(codebooks)
    for _ in range(5):  # some layers are dropped at random
        model(first)
    for handle in reversed(handles):
        handle.remove()
    readings, _ = readings_of(codebooks, within=Waiting)
    model(first)
    assert readings
