"""The lint names the faults that are there, none that are not, and leaves everything as it was."""

import copy
import functools
import random

import numpy as np
import pytest
import torch
from records import Records
from sequence_model import LEARNABLE, D, stranger
from torch import nn
from wiring import BUGS, CLEAN

from vqtool.diagnostics import CHECKS, CodebookMonitor, InputError, lint


def flags(report):
    return [finding for finding in report.findings if finding.severity != "info"]


@functools.cache
def of_clean(name):
    return lint(*CLEAN[name]())


def names(finding, attribute):
    """Whether a finding names the attribute, or something of it."""
    named = str(finding.evidence["attribute"])
    return f"{named}.".startswith(f"{attribute}.") or f"{attribute}.".startswith(f"{named}.")


@pytest.mark.parametrize("name", BUGS)
def test_a_fault_is_named_with_its_file_and_attribute(name):
    bug = BUGS[name]
    found = flags(lint(*bug.make()))
    told = [finding for finding in found if finding.check in bug.check and names(finding, bug.attribute)]
    assert {finding.check for finding in told} == {*bug.check}
    assert all(".py:" in finding.evidence["file"] for finding in told)
    # A fault has consequences; nothing is named that is not one.
    assert {finding.check for finding in found} <= {*bug.check, *bug.allowed}


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_flagged_where_nothing_is_wrong(name):
    assert flags(of_clean(name)) == []


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "replicas"])
def test_every_check_judges_some_clean_set_up(check):
    judged = {"reset": "moving averages", "residual-commitment": "residual", "moving-averages": "ema"}
    tried = [judged[check]] if check in judged else ["taming", "lucidrains", "far from zero", "orthogonal"]
    assert any(check in of_clean(name).passed for name in tried)


def bits(model, optimizer):
    state = [*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None)]
    kept = [t for per in optimizer.state.values() for t in per.values() if isinstance(t, torch.Tensor)]
    numbers = [torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64))]  # noqa: NPY002
    return [t.clone() for t in [*state, *kept, *numbers]], random.getstate()


def unlike(before, after):
    """Whether any of it differs by a bit; NaN equals itself."""
    pairs = zip(before[0], after[0], strict=True)
    return before[1] != after[1] or any(a.numpy().tobytes() != b.numpy().tobytes() for a, b in pairs)


def trained(name):
    """A set-up in the middle of its training: gradients, the optimizer's state, moved averages."""
    model, batch, loss, optimizer = CLEAN[name]()
    for _ in range(2):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    loss(model, batch).backward()
    return model, batch, loss, optimizer


OF_EACH_KIND = ("taming", "moving averages", "residual", "in place", "cache", "lucidrains", "gumbel", "lucidrains FSQ")


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_model_optimizer_and_random_numbers_stay_bit_identical(name):
    model, batch, loss, optimizer = trained(name)
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    kept = batch.clone()
    before = bits(model, optimizer)
    lint(model, batch, loss, optimizer)
    assert not unlike(before, bits(model, optimizer))
    assert torch.equal(batch, kept)
    assert modes == [module.training for module in model.modules()]
    assert hooks == [len(module._forward_hooks) for module in model.modules()]


def test_the_comparison_of_bits_sees_one_step_and_one_random_number():
    model, _, _, optimizer = trained("taming")
    before = bits(model, optimizer)
    torch.rand(1)
    assert unlike(before, bits(model, optimizer))
    before = bits(model, optimizer)
    optimizer.step()
    assert unlike(before, bits(model, optimizer))


def test_a_loss_that_trains_another_model_is_refused_and_undone():
    model, batch = stranger(), torch.randn(2, 32, D)
    optimizer = torch.optim.Adam(model.parameters())
    before = bits(model, optimizer)
    with pytest.raises(InputError, match="use its argument"):
        lint(model, batch, lambda _, x: model(x), optimizer)
    assert not unlike(before, bits(model, optimizer))


@pytest.mark.parametrize(
    ("loss", "line"),
    [
        (lambda model, x: model(x).item(), "should be a scalar tensor, not float"),
        (lambda model, x: model.encoder(x), r"not a tensor \(2, 32, 4\)"),
        (lambda model, x: model(x).detach(), "has no gradient"),
        (lambda model, x: x.nothing, "failed: AttributeError"),
    ],
)
def test_a_loss_that_is_no_scalar_is_told_in_one_line(loss, line):
    with pytest.raises(InputError, match=line) as told:
        lint(stranger(), torch.randn(2, 32, D), loss)
    assert "\n" not in str(told.value)


def test_a_model_without_a_codebook_is_told_in_one_line():
    with pytest.raises(InputError, match="no quantizer recognised in Linear"):
        lint(nn.Linear(2, 2), torch.zeros(1, 2))


def test_a_cached_codebook_with_a_graph_is_copied_with_the_model():
    model, batch = stranger(**LEARNABLE), torch.randn(2, 32, D)
    model.cache = model.vq._codebook.embed * 1
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    assert flags(lint(model, batch)) == []


def test_what_cannot_be_copied_is_told_in_one_line():
    model = stranger()
    model.generator = (each for each in ())
    with pytest.raises(InputError, match="Stranger cannot be copied, and the lint works on copies"):
        lint(model, torch.randn(2, 32, D))


def test_without_an_optimizer_its_checks_are_skipped_and_named():
    report = lint(stranger(**LEARNABLE), torch.randn(2, 32, D))
    assert {skip.check for skip in report.skipped if skip.why == "no optimizer was passed"} == {
        "optimizer",
        "weight-decay",
    }
    assert "not judged: optimizer, weight-decay: no optimizer was passed" in str(report)


def test_without_a_batch_the_model_is_judged_as_it_stands():
    model, *_ = BUGS["counts of zero"].make()
    report = lint(model)
    assert [finding.check for finding in flags(report)] == ["moving-averages"]
    assert {skip.check for skip in report.skipped if skip.why == "no batch was given"} > {"assignment", "settings"}


def test_a_batch_of_one_token_is_judged_as_far_as_it_goes():
    report = lint(stranger(**LEARNABLE), torch.randn(1, 1, D))
    assert "rank-at-start" in {skip.check for skip in report.skipped}
    assert flags(report) == []


def test_the_measured_facts_are_told_whatever_is_found():
    told = str(lint(stranger(**LEARNABLE, commitment_weight=0.25), torch.randn(4, 64, D)))
    assert "estimator straight-through, gain 1; latents are pulled to codes with weight 0.25" in told
    assert "100.0% of 256 indices are of the nearest code by euclidean" in told


def test_what_is_watched_is_told_first():
    assert str(lint(stranger(), torch.randn(2, 32, D))).splitlines()[0] == "watched: vq, 16 codes"


def test_an_attached_monitor_sees_nothing_of_it():
    model, batch, loss, optimizer = trained("taming")
    sink = Records()
    monitor = CodebookMonitor(model, optimizer, [sink], every=1)
    report = lint(model, batch, loss, optimizer)
    assert flags(report) == []
    assert (monitor.step, sink.records, sink.rows, sink.snapshots) == (0, [], [], [])
    loss(model, batch).backward()
    optimizer.step()
    assert monitor.step == 1
    assert len(sink.records) == 1


def test_hooks_of_the_optimizer_are_left_out_and_told_of():
    model, batch, loss, optimizer = trained("taming")
    called = []
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    report = lint(model, batch, loss, optimizer)
    assert called == []
    assert "not run: 1 of the optimizer's hooks" in report.watched
    optimizer.step()
    assert called == [1]


def test_a_loss_that_draws_from_numpy_and_python_is_repeated_with_the_same_numbers():
    model, batch = stranger(**LEARNABLE), torch.randn(4, 64, D)
    noisy = lambda model, x: model(x + np.random.normal() + random.random())  # noqa: E731, NPY002
    report = lint(model, batch, noisy)
    assert "repetition" not in report.trial.not_done
    assert report.trial.decoder_heard is True


def test_what_is_never_the_same_twice_is_skipped_and_named():
    model, batch = stranger(**LEARNABLE), torch.randn(4, 64, D)
    calls = iter(range(1000))
    report = lint(model, batch, lambda model, x: model(x) * (1 + next(calls)))
    why = next(skip.why for skip in report.skipped if skip.check == "settings")
    assert "gives another loss" in why


def test_heads_of_one_quantizer_are_no_layers_of_a_residual_one():
    model = stranger(heads=2, separate_codebook_per_head=True, codebook_dim=2)
    seen = lint(model, torch.randn(4, 64, D)).trial.seen
    assert {name: one.layer for name, one in seen.items()} == {"vq.head0": None, "vq.head1": None}
