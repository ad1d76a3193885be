"""The layers of a residual quantizer on the page of a run: what the records say of each, and when that is not known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic_stranger import write_stranger
from torch import nn
from vector_quantize_pytorch import ResidualVQ

from vqtool.diagnostics import CodebookMonitor, InputError, TraceSink, measure_codebooks, read_table
from vqtool.diagnostics.recording.ladders import ladders
from vqtool.diagnostics.run import RunDirectory
from vqtool.reports import write_report
from vqtool.reports.codebook.ladder import ladder_sections, residual_energies, share_left
from vqtool.reports.codebook.overview import uses


class Model(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.encoder = nn.Linear(6, 6)
        self.vq = ResidualVQ(dim=6, codebook_size=8, num_quantizers=3, **settings)

    def forward(self, x):
        quantized, _, loss = self.vq(self.encoder(x))
        return (quantized - x).square().mean() + loss.sum()


def trained(folder, steps=12, every=4, **settings):
    torch.manual_seed(0)
    model = Model(**settings)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    monitor = CodebookMonitor(model, optimizer, [TraceSink(folder)], every=every)
    for _ in range(steps):
        model(torch.randn(4, 50, 6) + 2).backward()
        optimizer.step()
    monitor.close()
    return model, RunDirectory(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("ladder") / "run")[1]


def section_of(run):
    """The section of the layers, of a run that has one."""
    (section,) = ladder_sections(run, {one.codebook: one.usage for one in uses(run)}, run.report)
    return section


def only(run):
    (ladder,) = ladders(run.codebook_names())
    return ladder


def test_what_each_layer_leaves_is_its_distortion_over_the_variance_that_enters(run):
    energies = residual_energies(run, only(run))
    assert energies.left.index.tolist() == [4, 8, 12]
    latents = read_table(run.path / "latents" / "vq.layers.0").set_index("step")
    for layer, name in enumerate(energies.left):
        trace = pd.read_parquet(run.path / "trace" / name)
        for step, share in energies.left[name].items():
            rows = trace[(trace["step"] == step) & (trace["hits"] > 0)]
            distortion = np.average(rows["distortion"], weights=rows["hits"])
            assert share == pytest.approx(distortion / latents.loc[step, "spread"] ** 2, rel=1e-4)
        assert name == f"vq.layers.{layer}"


def test_the_layers_have_a_table_and_curves(run):
    section = section_of(run)
    assert section.title == "Layers of vq.layers"
    table = pd.read_csv(run.report / "tables" / "vq.layers-layers.csv")
    assert table["layer"].tolist() == ["vq.layers.0", "vq.layers.1", "vq.layers.2"]
    left = residual_energies(run, only(run)).left.iloc[-1]
    np.testing.assert_allclose(table["left"], left)
    np.testing.assert_allclose(table["bits"], np.log2(table["perplexity"]))
    assert (table["log2_codes"] == 3).all()
    assert "over the record of step 12 (window of 4 steps)" in section.tables[0].notes[1]
    (curves,) = section.pictures
    assert f"At the end {share_left(left.iloc[0])} after the first and {share_left(left.iloc[-1])}" in curves.caption
    assert (run.report / "figures" / "vq.layers-left.png").exists()


def test_layers_that_some_tokens_skipped_are_told_of_too(tmp_path):
    _, run = trained(tmp_path / "dropout", steps=80, every=40, quantize_dropout=True)
    energies = residual_energies(run, only(run))
    assert (energies.left.iloc[-1] > 0).all()


def test_a_pass_of_a_trained_model_has_the_table_and_no_curves(tmp_path):
    model, _ = trained(tmp_path / "run")
    batches = torch.randn(3, 2, 50, 6)
    (measured,) = measure_codebooks(model, batches, [TraceSink(tmp_path / "measured")]).layers.values()
    section = section_of(RunDirectory(tmp_path / "measured"))
    table = pd.read_csv(tmp_path / "measured" / "report" / "tables" / "vq.layers-layers.csv")
    np.testing.assert_allclose(table["left"], measured.residual_energy, rtol=1e-4)
    assert not section.pictures
    assert "over the whole pass." in section.tables[0].notes[1]


def test_layers_in_spaces_of_their_own_have_a_table_without_what_they_leave(tmp_path):
    _, run = trained(tmp_path / "cosine", use_cosine_sim=True)
    with pytest.raises(InputError, match="quantize in other spaces, or scaled"):
        residual_energies(run, only(run))
    section = section_of(run)
    assert pd.read_csv(run.report / "tables" / "vq.layers-layers.csv")["left"].isna().all()
    assert section.missing[0].startswith("What each layer leaves is not shown: the energy of what enters vq.layers.1")
    assert not section.pictures


def test_codebooks_that_are_no_layers_have_no_section(tmp_path):
    run = write_stranger(tmp_path / "two", "text.quantizer", "image.quantizer", tables=False)
    assert not [*ladder_sections(run, {one.codebook: one.usage for one in uses(run)}, run.report)]


def test_layers_without_moments_of_their_latents_have_a_table_that_says_so(tmp_path):
    run = write_stranger(tmp_path / "bare", "vq.0", "vq.1", tables=False)
    assert "the moments of the latents are not recorded" in section_of(run).missing[0]
    assert math.isnan(pd.read_csv(run.report / "tables" / "vq-layers.csv")["left"][0])


@pytest.mark.slow
def test_the_page_of_a_run_has_a_section_of_its_layers(tmp_path):
    run = write_stranger(tmp_path / "bare", "vq.0", "vq.1", tables=False)
    write_report(run.path)
    assert "<h2>Layers of vq</h2>" in (run.report / "index.html").read_text()
