"""What the lint finds in quantizers as they are installed is what docs/checks.md says, and nothing else."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from strangers import LUCIDRAINS
from strangers.base import Stranger
from vector_quantize_pytorch import ResidualVQ
from wiring.base import adam
from wiring.hosts import HOSTED, UNTRAINED, Autoencoder, mixture, rebuilding

import vqtool
from vqtool.diagnostics import lint

PAGE = (Path(str(vqtool.__file__)).parent / "docs" / "checks.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## What it finds in libraries")[2]

AFFINE, BRIDGE = "VectorQuantize(affine_param=True)", "VectorQuantize(vq_bridge=...)"
TOP_K, DIRECTIONAL = "VectorQuantize()(x, topk=3)", "VectorQuantize(directional_reparam=True)"
BEAMS, LATENT, LEGACY = "ResidualVQ(beam_size=2)", "LatentQuantize()", "VectorQuantizer()"
ENCODEC, RESIDUAL = "VectorQuantization()", "ResidualVectorQuantization()"

#: Of each configuration in which something is found, the checks that find it, by the rows of the table.
FLAGGED: dict[str, dict[str, tuple[str, ...]]] = {
    "lucidrains affine": {AFFINE: ("round-trip", "train-eval")},
    "lucidrains bridge": {BRIDGE: ("round-trip",)},
    "lucidrains top k": {TOP_K: ("codebook-gradient",)},
    "lucidrains top k masked": {TOP_K: ("codebook-gradient",)},
    "lucidrains directional": {DIRECTIONAL: ("settings",)},
    "lucidrains residual beams": {BEAMS: ("codebook-gradient",)},
    "lucidrains residual beams projected": {BEAMS: ("codebook-gradient",)},
    "lucidrains residual beams masked": {BEAMS: ("codebook-gradient",)},
    "lucidrains residual beams dropped": {BEAMS: ("codebook-gradient",)},
    "latent quantize": {LATENT: ("codebook-gradient", "loss-on-output", "commitment")},
    "latent quantize not projected": {LATENT: ("codebook-gradient", "loss-on-output", "commitment")},
    "diffusers": {LEGACY: ("commitment-side",)},
    "diffusers sane shape": {LEGACY: ("commitment-side",)},
    "diffusers square": {LEGACY: ("commitment-side",)},
    "diffusers model": {"VQModel()": ("commitment-side",)},
    "diffusers remap": {LEGACY: ("commitment-side",), "VectorQuantizer(remap=...)": ("round-trip",)},
    "diffusers remap extra": {LEGACY: ("commitment-side",), "VectorQuantizer(remap=...)": ("round-trip",)},
    "diffusers ace step": {"_AceStepResidualFSQ()": ("straight-through",)},
    "chameleon": {"ChameleonVQVAEVectorQuantizer()": ("commitment-side",)},
    "janus": {"JanusVQVAEVectorQuantizer()": ("commitment-side", "round-trip")},
    "dac": {"DacVectorQuantize()": ("cosine-lengths",)},
    "residual dac": {"DacResidualVectorQuantizer()": ("cosine-lengths",)},
    "encodec": {ENCODEC: ("moving-averages", "reset")},
    "encodec kmeans": {ENCODEC: ("moving-averages", "reset")},
    "encodec projected": {ENCODEC: ("moving-averages", "reset")},
    "encodec residual": {ENCODEC: ("moving-averages", "reset"), RESIDUAL: ("residual-commitment",)},
}


def report_of(name, seed=0):
    set_up = HOSTED[name]()
    torch.manual_seed(seed)
    return lint(*set_up)


def checks_of(report):
    return {finding.check for finding in report.findings if finding.severity != "info"}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTED)
def test_what_is_found_in_a_library_is_what_the_table_says(name):
    expected = {check for checks in FLAGGED.get(name, {}).values() for check in checks}
    assert checks_of(report_of(name)) == expected


def rows():
    for line in SECTION.splitlines():
        if line.startswith("| ") and not line.startswith("| library"):
            _, configurations, finding, *_ = (cell.strip() for cell in line.strip("|").split("|"))
            (check,) = re.findall(r"`([a-z-]+)`", finding)
            yield from ((configuration, check) for configuration in re.findall(r"`([^`]+)`", configurations))


def test_the_table_has_a_row_for_each_finding():
    found = {(row, check) for each in FLAGGED.values() for row, checks in each.items() for check in checks}
    assert {*rows()} == found


def test_the_page_counts_what_was_looked_at():
    classes = {type(HOSTED[name]().model.vq) for name in HOSTED}
    assert f"{len(HOSTED)} configurations of {len(classes)} classes; {len(FLAGGED)} of" in " ".join(SECTION.split())
    assert f"Left out are {len(UNTRAINED)} quantizers" in " ".join(SECTION.split())


@pytest.mark.parametrize("library", ["vector-quantize-pytorch", "diffusers", "transformers", "encodec"])
def test_the_page_names_the_release_that_is_installed(library):
    assert f"{library} {version(library)}" in " ".join(SECTION.split())


def test_questions_to_the_graph_leave_no_gradient_at_the_boundary():
    for seen in report_of("lucidrains residual diveq").trial.seen.values():
        first, second, *_ = seen.boundary
        assert first.decoder_grad_norm < 10 * second.decoder_grad_norm


@pytest.mark.parametrize("seed", [0, 1])
def test_layers_that_share_codes_are_judged_by_the_latents_of_all(seed):
    torch.manual_seed(seed)
    shared = Stranger(lambda: ResidualVQ(dim=4, codebook_size=16, num_quantizers=6, shared_codebook=True), (2, 10, 4))
    model = Autoencoder("shared", shared).train()
    assert checks_of(lint(model, mixture((32, 10, 12), 2), rebuilding, adam(model))) == set()


@pytest.mark.parametrize(("name", "seed"), [("residual diveq", 3), ("directional", 4)])
def test_what_a_decoder_asks_of_codes_is_not_taken_for_a_codebook_loss_of_the_wrong_sign(name, seed):
    torch.manual_seed(seed)
    model = Autoencoder(f"lucidrains {name}", LUCIDRAINS[name]).train()
    torch.manual_seed(seed)
    assert "attraction" not in checks_of(lint(model, mixture((32, 10, 12), 2), rebuilding, adam(model)))


def test_a_later_layer_that_is_dropped_in_every_step_is_not_judged():
    torch.manual_seed(4)
    model = Autoencoder("lucidrains residual dropout", LUCIDRAINS["residual dropout"]).train()
    torch.manual_seed(4)
    report = lint(model, mixture((32, 10, 12), 2), rebuilding, adam(model))
    assert any(not seen.steps for seen in report.trial.seen.values())
    assert checks_of(report) == set()


def test_losses_of_later_layers_are_not_taken_for_losses_on_the_output_of_the_first():
    assert "loss-on-output" not in checks_of(report_of("encodec residual", seed=7))


def test_chosen_codes_are_counted_by_their_number_not_by_their_rounding():
    report = report_of("dac")
    (finding,) = [finding for finding in report.findings if finding.check == "cosine-lengths"]
    assert finding.evidence["codes"] <= report.trial.seen["vq"].size


def test_a_call_in_evaluation_that_moves_codes_is_named():
    told = [finding.evidence for finding in report_of("lucidrains affine").findings if finding.check == "train-eval"]
    assert any("moved" in evidence for evidence in told)
