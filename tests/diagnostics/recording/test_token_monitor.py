"""The instrument of a model over codes: its numbers by a loop, and the model as if it were not there."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from records import Records
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vqtool.diagnostics import InputError, TokenMonitor, TraceSink
from vqtool.diagnostics.recording.trace import TokenTrace

K, D, TOKENS = 12, 6, 15  # three tokens are no codes


class Toy(nn.Module):
    """Tokens (B, N) -> logits of the next one (B, N, TOKENS)."""

    def __init__(self, tied=False):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, D)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(D, TOKENS, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.dropout(self.embedding(tokens)).tanh())


def toy(**settings):
    torch.manual_seed(0)
    model = Toy(**settings)
    return model, torch.optim.Adam(model.parameters(), lr=1e-2)


def watch(model, optimizer, **settings):
    sink = Records()
    return TokenMonitor(model.embedding, model.head, optimizer, [sink], codes=K, **settings), sink


def batches(count):
    """Tokens to read (4, 8), the first of them no codes, and codes to predict; code 0 never comes."""
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(1, K, (count, 4, 8), generator=generator)
    return [(torch.cat([torch.full((4, 1), K), batch[:, :-1]], dim=1), batch) for batch in codes]


def train(model, optimizer, data, monitor=None, micro=1):
    losses = []
    for tokens, targets in data:
        optimizer.zero_grad()
        for part, wanted in zip(tokens.chunk(micro), targets.chunk(micro), strict=True):
            nll = F.cross_entropy(model(part).transpose(1, 2), wanted, reduction="none")
            (nll.mean() / micro).backward()
            losses.append(nll)
            if monitor is not None:
                monitor.observe(wanted, nll)
        optimizer.step()
    return losses


def assert_same_records(ones, others):
    assert len(ones) == len(others) > 0
    for one, other in zip(ones, others, strict=True):
        for name in vars(one):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("tied", [False, True])
def test_attaching_changes_nothing(tied):
    def run(attach):
        model, optimizer = toy(tied=tied)
        monitor = watch(model, optimizer, every=2)[0] if attach else None
        losses = train(model, optimizer, batches(5), monitor, micro=2)
        state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        if monitor is not None:
            monitor.detach()
            assert not optimizer._optimizer_step_pre_hooks
        return losses, [p.grad for p in model.parameters()], state, random

    (losses, gradients, state, random), (plain_losses, plain_gradients, plain_state, plain_random) = run(True), run(0)
    assert all(torch.equal(a, b) for a, b in zip(losses, plain_losses, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gradients, plain_gradients, strict=True))
    assert list(state) == list(plain_state)
    assert all(torch.equal(state[name], plain_state[name]) for name in state)
    assert torch.equal(random, plain_random)


@pytest.mark.parametrize("tied", [False, True])
def test_a_window_holds_what_a_loop_counts(tied):
    model, optimizer = toy(tied=tied)
    monitor, sink = watch(model, optimizer, every=3)
    for step in (3, 6):
        targets, nll = np.zeros(K, int), np.zeros(K)
        gradients = {"embedding": np.zeros(K), "head": np.zeros(K)}
        for batch in batches(6)[step - 3 : step]:
            norms = {name: getattr(model, name).weight.detach().norm(dim=1)[:K].numpy() for name in gradients}
            losses = train(model, optimizer, [batch], monitor, micro=2)
            for code, loss in zip(batch[1].flatten().tolist(), torch.cat(losses).flatten().tolist(), strict=True):
                targets[code] += 1
                nll[code] += loss
            for name, total in gradients.items():
                for code in range(K):
                    total[code] += getattr(model, name).weight.grad[code].norm().item() / 3
        record = sink.records[-1]
        assert (record.codebook, record.step, record.window) == ("tokens", step, 3)
        np.testing.assert_array_equal(record.targets, targets)
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(record.nll, nll / targets, rtol=1e-5)
        for name, total in gradients.items():
            np.testing.assert_allclose(getattr(record, f"{name}_grad_norm"), total, rtol=1e-5, atol=1e-9)
            np.testing.assert_allclose(getattr(record, f"{name}_norm"), norms[name], rtol=1e-6)
    assert record.targets[0] == 0
    assert np.isnan(record.nll[0])


def test_the_gradient_is_the_one_that_the_optimizer_sees():
    model, optimizer = toy()
    _, sink = watch(model, optimizer, every=1)
    model(batches(1)[0][0]).square().sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    optimizer.step()
    np.testing.assert_allclose(sink.records[0].head_grad_norm, model.head.weight.grad[:K].norm(dim=1), rtol=1e-6)
    assert sink.records[0].head_grad_norm.max() < 1e-3


def test_a_table_without_gradient_has_no_gradient_norm():
    model, _ = toy()
    model.embedding.requires_grad_(False)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    monitor, sink = watch(model, optimizer, every=2)
    train(model, optimizer, batches(2), monitor)
    assert np.isnan(sink.records[0].embedding_grad_norm).all()
    assert sink.records[0].head_grad_norm.max() > 0


def test_a_sparse_gradient_is_read_as_a_dense_one():
    records = []
    for sparse in (True, False):
        model, _ = toy()
        model.embedding.sparse = sparse
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitor, sink = watch(model, optimizer, every=2)
        train(model, optimizer, batches(2), monitor)
        records.append(sink.records[0].embedding_grad_norm)
    np.testing.assert_allclose(*records, rtol=1e-5)


def test_windows_are_as_long_as_asked_and_the_last_one_may_be_short():
    model, optimizer = toy()
    monitor, sink = watch(model, optimizer, every=3, name="gpt")
    train(model, optimizer, batches(7), monitor)
    monitor.close()
    monitor.close()
    assert [(record.codebook, record.step, record.window) for record in sink.records] == [
        ("gpt", 3, 3),
        ("gpt", 6, 3),
        ("gpt", 7, 1),
    ]
    assert [record.targets.sum() for record in sink.records] == [96, 96, 32]


def test_a_monitor_goes_on_in_the_middle_of_a_window(tmp_path):
    model, optimizer = toy()
    monitor, one = watch(model, optimizer, every=4)
    train(model, optimizer, batches(8), monitor)

    model, optimizer = toy()
    monitor, two = watch(model, optimizer, every=4)
    train(model, optimizer, batches(8)[:6], monitor)
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    monitor.detach()
    again, three = watch(model, optimizer, every=4)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(model, optimizer, batches(8)[6:], again)
    assert_same_records(one.records, two.records + three.records)


def test_a_saved_state_is_not_touched_by_what_comes_after():
    model, optimizer = toy()
    monitor, _ = watch(model, optimizer, every=100)
    train(model, optimizer, batches(2), monitor)
    state = monitor.state_dict()
    before = copy.deepcopy(state)
    train(model, optimizer, batches(2), monitor)
    assert all(torch.equal(state["window"][name], before["window"][name]) for name in ("targets", "nll"))
    assert torch.equal(state["window"]["head_grad_norm"], before["window"]["head_grad_norm"])


class NoWaiting(TorchDispatchMode):
    """Fails on whatever makes the host wait for a device: values, sizes that depend on values, copies."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_unique2", "masked_select"}, name
        assert name != "_to_copy" or "device" not in (kwargs or {}), name
        return func(*args, **(kwargs or {}))


def test_the_host_waits_for_records_only():
    model, optimizer = toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor, _ = watch(model, optimizer, every=5)
    with NoWaiting():
        train(model, optimizer, batches(4), monitor)
        with pytest.raises(AssertionError):
            train(model, optimizer, batches(1), monitor)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_of_a_gpu_waits_for_records_only():
    model, _ = toy()
    model.cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor, sink = watch(model, optimizer, every=5)
    data = [(tokens.cuda(), targets.cuda()) for tokens, targets in batches(5)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(model, optimizer, data[:4], monitor)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    train(model, optimizer, data[4:], monitor)
    assert sink.records[0].targets.sum() == 5 * 32


def test_a_monitor_writes_a_trace(tmp_path):
    model, optimizer = toy()
    monitor = TokenMonitor(model.embedding, model.head, optimizer, [TraceSink(tmp_path)], codes=K, every=2)
    train(model, optimizer, batches(5), monitor)
    monitor.close()
    trace = TokenTrace.load(tmp_path / "trace" / "tokens")
    assert trace.steps.tolist() == [2, 4, 5]
    assert trace.targets.sum(1).tolist() == [64, 64, 32]


def test_more_codes_than_rows_are_told_in_one_line():
    model, optimizer = toy()
    with pytest.raises(InputError, match="the head has 5 rows, fewer than the 12 codes") as error:
        TokenMonitor(model.embedding, nn.Linear(D, 5), optimizer, codes=K)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_two_ranks_that_were_interrupted_leave_the_trace_of_one(tmp_path):
    script = Path(__file__).with_name("token_ranks.py")
    for folder, size in {"one": 1, "two": 2}.items():
        (tmp_path / folder).mkdir()
        command = [sys.executable, str(script), str(tmp_path / folder), str(size)]
        ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(size)]
        assert [rank.wait(120) for rank in ranks] == [0] * size
    one, two = (TokenTrace.load(tmp_path / folder / "trace" / "tokens") for folder in ("one", "two"))
    assert one.steps.tolist() == two.steps.tolist() == [4, 8, 10]
    assert one.targets.sum(1).tolist() == [128, 128, 64]
    for name in one.arrays:
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-7, err_msg=name)
