"""A code that is written by hand: where it stays, where it is undone, and what has to be written with it."""

import pytest
import torch
from wiring import CLEAN

from vqtool.diagnostics import lint


class Restored(torch.nn.Embedding):
    """A table that a copy of it, kept for safety, is put back over at every look."""

    def __init__(self, table):
        super().__init__(*table.weight.shape, _weight=table.weight.detach().clone())
        self.register_buffer("kept", table.weight.detach().clone())

    def forward(self, indices):
        with torch.no_grad():
            self.weight.lerp_(self.kept, 0.9)
        return super().forward(indices)


def found(setup):
    return [finding for finding in lint(*setup).findings if finding.check == "planted-code"]


def test_codes_that_are_put_back_are_a_problem():
    model, batch, loss, _ = CLEAN["taming"]()
    model.quantize.embedding = Restored(model.quantize.embedding)
    (finding,) = found((model, batch, loss, torch.optim.Adam(model.parameters(), lr=1e-3)))
    assert finding.severity == "problem"
    assert finding.evidence["attribute"] == "quantize.embedding.weight"
    assert finding.evidence["returned"] > 0.9
    assert "something overwrites it" in finding.statement


@pytest.mark.parametrize("name", ["moving averages", "ema", "lucidrains"])
def test_moving_averages_undo_a_code_that_is_written_alone_and_keep_one_that_is_written_with_them(name):
    (finding,) = found(CLEAN[name]())
    assert finding.severity == "info"
    assert "has to write all three" in finding.statement
    (seen,) = lint(*CLEAN[name]()).trial.seen.values()
    assert seen.planted.alone > 0.5
    assert abs(seen.planted.with_averages) < 0.5


@pytest.mark.parametrize("name", ["taming", "lucidrains learnable"])
def test_a_code_that_learns_by_a_gradient_stays_where_it_is_put(name):
    report = lint(*CLEAN[name]())
    assert "planted-code" in report.passed
    (seen,) = report.trial.seen.values()
    assert abs(seen.planted.alone) < 0.2
    assert seen.planted.with_averages is None or name == "lucidrains learnable"
