"""The instrument: its numbers by hand, and the model as if it were not there."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from records import Records
from torch import nn
from torch.utils.checkpoint import checkpoint

from vqtool.diagnostics import CodebookMonitor, InputError
from vqtool.vqgan.quantizers import QUANTIZERS, StandardQuantizer

K, D = 16, 4


class Toy(nn.Module):
    """Images (B, 3, 4, 4) -> latents -> codes -> images."""

    def __init__(self, name="standard"):
        super().__init__()
        self.encoder = nn.Conv2d(3, D, 1)
        self.quantize = QUANTIZERS[name](K, D)
        self.decoder = nn.Conv2d(D, 3, 1)

    def forward(self, images):
        output = self.quantize(self.encoder(images))
        return F.mse_loss(self.decoder(output.quantized), images) + output.loss, output


def toy(name="standard", seed=0):
    torch.manual_seed(seed)
    model = Toy(name)
    return model, torch.optim.Adam(model.parameters(), lr=1e-2)


def batches(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 4, 4, generator=generator) for _ in range(count)]


def train(model, optimizer, data, micro=1):
    losses = []
    for batch in data:
        optimizer.zero_grad()
        for part in batch.chunk(micro):
            loss, _ = model(part)
            (loss / micro).backward()
            losses.append(loss.item())
        optimizer.step()
        model.quantize.end_step()
    return losses


@pytest.mark.parametrize("name", QUANTIZERS)
def test_attaching_changes_nothing(name):
    plain, plain_optimizer = toy(name)
    watched, watched_optimizer = toy(name)
    keys = list(watched.state_dict())
    monitor = CodebookMonitor(watched, watched_optimizer, [Records()], every=2)
    torch.manual_seed(7)
    expected = train(plain, plain_optimizer, batches(5)), torch.get_rng_state()
    torch.manual_seed(7)
    got = train(watched, watched_optimizer, batches(5)), torch.get_rng_state()
    assert got[0] == expected[0]
    assert torch.equal(got[1], expected[1])
    assert list(watched.state_dict()) == keys
    for (where, a), (_, b) in zip(watched.state_dict().items(), plain.state_dict().items(), strict=True):
        assert torch.equal(a, b), where
    for a, b in zip(watched.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    monitor.detach()
    assert not watched.quantize._forward_hooks
    assert not watched_optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_record_holds_what_a_loop_counts(name):
    model, optimizer = toy(name)
    sink = Records()
    CodebookMonitor(model, optimizer, [sink], every=1)
    seen = {}
    model.quantize.register_forward_hook(
        lambda module, args, output: seen.update(
            latents=args[0].detach().clone(), indices=output.indices, book=module.codebook.detach().clone()
        )
    )
    before = None
    for step, batch in enumerate(batches(3), start=1):
        train(model, optimizer, [batch])
        record = sink.records[-1]
        z = seen["latents"].permute(0, 2, 3, 1).reshape(-1, D)
        e, indices = seen["book"], seen["indices"].flatten().tolist()
        hits, distortion, pull = np.zeros(K, int), np.zeros(K), torch.zeros(K, D)
        for token, k in zip(z, indices, strict=True):
            hits[k] += 1
            distortion[k] += (token - e[k]).square().sum().item()
            pull[k] += 2 / (len(indices) * D) * (e[k] - token)
        assert record.step == step
        assert record.window == 1
        np.testing.assert_array_equal(record.hits, hits)
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(record.distortion, distortion / hits, rtol=1e-5)
        np.testing.assert_allclose(record.norm, e.norm(dim=1), rtol=1e-6)
        np.testing.assert_allclose(record.pull_norm, pull.norm(dim=1), rtol=1e-4, atol=1e-9)
        if before is None:
            assert np.isnan(record.drift).all()
        else:
            np.testing.assert_allclose(record.drift, (e - before).norm(dim=1), rtol=1e-4, atol=1e-9)
        before = e


def test_the_pull_is_the_true_gradient_of_the_plain_straight_through_codebook():
    model, optimizer = toy("standard")
    sink = Records()
    CodebookMonitor(model, optimizer, [sink], every=3)
    train(model, optimizer, batches(6))
    for record in sink.records:
        np.testing.assert_allclose(record.pull_norm, record.grad_norm, rtol=1e-4, atol=1e-9)
        assert (record.grad_norm[record.hits == 0] == 0).all()
        assert (record.grad_norm[record.hits > 0] > 0).all()


def test_micro_batches_of_one_step_are_read_as_one_batch():
    whole, whole_optimizer = toy("standard")
    split, split_optimizer = toy("standard")
    sinks = Records(), Records()
    CodebookMonitor(whole, whole_optimizer, [sinks[0]], every=2)
    CodebookMonitor(split, split_optimizer, [sinks[1]], every=2)
    train(whole, whole_optimizer, batches(4))
    train(split, split_optimizer, batches(4), micro=2)
    for a, b in zip(sinks[0].records, sinks[1].records, strict=True):
        np.testing.assert_array_equal(a.hits, b.hits)
        np.testing.assert_allclose(a.pull_norm, b.pull_norm, rtol=1e-3, atol=1e-8)
        np.testing.assert_allclose(a.grad_norm, b.grad_norm, rtol=1e-3, atol=1e-8)
        assert a.window == b.window == 2


def test_a_codebook_without_gradient_has_no_gradient_norm_but_a_pull():
    model, optimizer = toy("ema")
    sink = Records()
    CodebookMonitor(model, optimizer, [sink], every=1)
    train(model, optimizer, batches(1))
    assert np.isnan(sink.records[0].grad_norm).all()
    assert sink.records[0].pull_norm.max() > 0


def test_the_gradient_is_the_one_that_the_optimizer_sees():
    model, optimizer = toy("standard")
    sink = Records()
    CodebookMonitor(model, optimizer, [sink], every=1)
    loss, _ = model(batches(1)[0])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    clipped = model.quantize.embedding.weight.grad.norm(dim=1)
    optimizer.step()
    np.testing.assert_allclose(sink.records[0].grad_norm, clipped, rtol=1e-6)


def test_evaluation_is_not_counted():
    model, optimizer = toy()
    monitor = CodebookMonitor(model, optimizer, every=100)
    model.eval()
    model(batches(1)[0])
    assert monitor.last_hits("quantize").sum() == 0
    model.train()
    model(batches(1)[0])
    assert monitor.last_hits("quantize").sum() == 2 * 4 * 4


def test_a_forward_that_is_recomputed_for_the_backward_pass_is_counted_once():
    model, optimizer = toy()
    sink = Records()
    CodebookMonitor(model, optimizer, [sink], every=1)
    latents = model.encoder(batches(1)[0])
    checkpoint(lambda z: model.quantize(z).quantized, latents, use_reentrant=False).sum().backward()
    optimizer.step()
    assert sink.records[0].hits.sum() == 2 * 4 * 4


def test_windows_are_as_long_as_asked_and_the_last_one_may_be_short():
    model, optimizer = toy()
    sink = Records()
    monitor = CodebookMonitor(model, optimizer, [sink], every=3)
    train(model, optimizer, batches(7))
    monitor.close()
    assert [(record.step, record.window) for record in sink.records] == [(3, 3), (6, 3), (7, 1)]
    assert [record.hits.sum() for record in sink.records] == [96, 96, 32]


def train_with_a_scaler(data, overflows, known):
    """Records every second step of a loop whose gradients overflow at some steps; tokens and gradients step by step."""
    (model, optimizer), kept, tokens, gradients = toy(), Records(), [], []
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    monitor = CodebookMonitor(model, optimizer, [kept], every=2, scaler=scaler if known == "passed" else None)
    for number, images in enumerate(data, start=1):
        optimizer.zero_grad()
        loss, output = model(images)
        scaler.scale(loss).backward()
        if number in overflows:
            next(model.parameters()).grad[:] = torch.inf
        scaler.unscale_(optimizer)
        tokens.append(output.indices.numel())
        gradients.append(model.quantize.codebook.grad.norm(dim=1).clone())
        scaler.step(optimizer)
        scaler.update()
        if known == "told":
            monitor.step_over()
    monitor.close()
    return kept.records, tokens, gradients


@pytest.mark.parametrize("known", ["told", "passed", "found"])
@pytest.mark.parametrize("overflows", [(), (1,), (1, 2), (3,), (4,), (3, 4), (7,)])
def test_a_step_that_a_gradient_scaler_skips_is_a_step_of_the_loop_without_a_gradient(overflows, known):
    records, tokens, gradients = train_with_a_scaler(batches(7), overflows, known)
    assert [(record.step, record.window) for record in records] == [(2, 2), (4, 2), (6, 2), (7, 1)]
    if known == "found" and overflows == (1, 2):
        return  # a scaler is found at the first step that it takes, when the tokens of the skipped ones are in already
    for record, steps in zip(records, [(1, 2), (3, 4), (5, 6), (7,)], strict=True):
        used = [gradients[step - 1] for step in steps if step not in overflows]
        assert record.hits.sum() == sum(tokens[step - 1] for step in steps)
        if used:
            np.testing.assert_allclose(record.grad_norm, torch.stack(used).mean(0), rtol=1e-5)
        else:
            assert np.isnan(record.grad_norm).all()
        assert np.isfinite(record.pull_norm).all()


def test_resets_are_counted_in_the_open_window():
    model, optimizer = toy()
    sink = Records()
    monitor = CodebookMonitor(model, optimizer, [sink], every=2)
    train(model, optimizer, batches(1))
    monitor.count_resets("quantize", torch.tensor([3, 5]))
    train(model, optimizer, batches(3))
    assert sink.records[0].resets.nonzero()[0].tolist() == [3, 5]
    assert sink.records[1].resets.sum() == 0


def test_a_monitor_goes_on_in_the_middle_of_a_window():
    model, optimizer = toy()
    one = Records()
    CodebookMonitor(model, optimizer, [one], every=4)
    train(model, optimizer, batches(8))

    model, optimizer = toy()
    two = Records()
    first = CodebookMonitor(model, optimizer, [two], every=4)
    train(model, optimizer, batches(8)[:6])
    state = copy.deepcopy(first.state_dict())
    first.detach()
    second = CodebookMonitor(model, optimizer, [two], every=4)
    second.load_state_dict(state)
    train(model, optimizer, batches(8)[6:])
    assert len(one.records) == len(two.records) == 2
    for a, b in zip(one.records, two.records, strict=True):
        for name in vars(a):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_several_codebooks_are_kept_apart_by_their_paths():
    torch.manual_seed(0)
    model = nn.ModuleDict({"coarse": StandardQuantizer(K, D), "fine": nn.ModuleList([StandardQuantizer(8, D)])})
    sink = Records()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    CodebookMonitor(model, optimizer, [sink], every=1)
    for size in (2, 3):
        model["coarse"](torch.randn(1, D, size, size)).loss.backward()
        model["fine"][0](torch.randn(1, D, 1, 1)).loss.backward()
        optimizer.step()
    hits = [(record.codebook, int(record.hits.sum())) for record in sink.records]
    assert hits == [("coarse", 4), ("fine.0", 1), ("coarse", 9), ("fine.0", 1)]


def test_a_codebook_that_was_never_seen_is_told_of_once_and_not_recorded_as_dead():
    torch.manual_seed(0)
    model = nn.ModuleDict({"coarse": StandardQuantizer(K, D), "fine": StandardQuantizer(8, D)})
    sink = Records()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    CodebookMonitor(model, optimizer, [sink], every=1)
    model["coarse"](torch.randn(1, D, 2, 2)).loss.backward()
    with pytest.warns(UserWarning, match="no training forward of fine"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    assert {record.codebook for record in sink.records} == {"coarse"}


def test_a_model_without_a_known_quantizer_is_told_in_one_line():
    with pytest.raises(InputError, match="no quantizer recognised in Linear") as error:
        CodebookMonitor(model := nn.Linear(2, 2), torch.optim.SGD(model.parameters()))
    assert "\n" not in str(error.value)
