"""What is wrong at the start is named: numbers that are not finite, and how latents and codes lie to each other."""

import pytest
import torch
from wiring import CLEAN

from vqtool.diagnostics import InputError, lint


def linted(change):
    """The lint of a clean set-up after a change of its model."""
    model, batch, loss, optimizer = CLEAN["taming"]()
    with torch.no_grad():
        change(model)
    return lint(model, batch, loss, optimizer)


def small(model):
    model.quantize.embedding.weight.mul_(1e-3)


def far_out(model):
    model.quantize.embedding.weight.mul_(1e3)


def off_centre(model):
    model.quant_conv.bias.add_(50)


def on_a_line(model):
    weight = model.quant_conv.weight
    weight.copy_(weight[:1].expand_as(weight).clone())


def copied(model):
    codes = model.quantize.embedding.weight
    codes[len(codes) // 2 :] = codes[: len(codes) // 2].clone()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (small, "scale-at-start"),
        (far_out, "scale-at-start"),
        (off_centre, "offset-at-start"),
        (on_a_line, "rank-at-start"),
        (copied, "duplicates-at-start"),
    ],
)
def test_a_bad_start_is_named_and_told_to_be_one_of_the_start(change, check):
    clean = linted(lambda model: None)
    assert check in clean.passed
    (found,) = (finding for finding in linted(change).findings if finding.check == check)
    assert found.codebook == "quantize"
    assert "at the start" in found.statement


def test_a_start_that_a_tenth_of_the_codes_cannot_get_over_is_a_warning():
    (found,) = (finding for finding in linted(off_centre).findings if finding.check == "offset-at-start")
    assert found.severity == "warning"
    assert found.evidence["codes_reached"] <= 3


def test_what_is_not_finite_is_named_the_loss_first_then_the_latents_that_it_broke():
    model, batch, loss, optimizer = CLEAN["taming"]()
    report = lint(model, batch, lambda model, batch: loss(model, batch) * torch.inf, optimizer)
    told = [finding for finding in report.findings if finding.check == "finite"]
    assert told[0].statement == "the loss is inf at step 1"
    assert told[1].codebook == "quantize"
    assert told[1].statement == "100.0% of the latents at step 2 are not finite"


def test_latents_that_become_infinite_are_named():
    model, batch, loss, optimizer = CLEAN["lucidrains"]()
    steps = iter(range(1000))

    def growing(model, batch):
        return loss(model, batch * (torch.inf if next(steps) == 1 else 1.0))

    told = [finding for finding in lint(model, batch, growing, optimizer).findings if finding.check == "finite"]
    assert any("% of the latents at step 2 are not finite" in finding.statement for finding in told)


@pytest.mark.parametrize("name", ["taming", "lucidrains"])
def test_a_first_call_that_nothing_can_be_found_out_by_is_refused_in_one_line(name):
    model, batch, loss, optimizer = CLEAN[name]()
    with pytest.raises(InputError, match="its latents are not finite in its first call"):
        lint(model, batch * torch.inf, loss, optimizer)
