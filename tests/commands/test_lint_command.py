"""``vqtool lint`` and ``vqtool explain``: what they print, what they leave, how they refuse."""

import json
import textwrap

import pytest
from tiny import assert_refused, call

from vqtool.diagnostics import CHECKS, Finding, RunDirectory
from vqtool.diagnostics.findings import append_finding

FACTORIES = """
    import torch
    from sequence_model import LEARNABLE, D, stranger

    def loss(model, batch):
        return model(batch)

    def setup(optimizer):
        torch.manual_seed(0)
        model = stranger(**LEARNABLE)
        return model, torch.randn(4, 64, D), loss, optimizer(model)

    def clean():
        return setup(lambda model: torch.optim.Adam(model.parameters(), 1e-3))

    def decayed():
        return setup(lambda model: torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1))

    def left_out():
        return setup(lambda model: torch.optim.Adam(model.encoder.parameters(), 1e-3))

    def not_shared():
        model = stranger(sync_codebook=False)
        return model, torch.randn(4, 64, D), loss, torch.optim.Adam(model.parameters(), 1e-3)

    def uneven():
        model, batch, loss, optimizer = clean()
        return model, batch[:3], loss, optimizer

    def alone():
        return stranger()

    def a_number():
        return 3

    def a_pair():
        return stranger(), None

    def no_loss():
        return stranger(), torch.zeros(1, 2, D), 3, None

    def no_codebook():
        return torch.nn.Linear(2, 2)

    def fails():
        raise RuntimeError("no data here\\nand more")

    constant = 3
"""


def refused(answer, told):
    assert_refused(answer.code, answer.err, told)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a module of factories in it."""
    name = f"factories_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(FACTORIES))
    (tmp_path / f"{name}_broken.py").write_text("import nothing_of_that_name\n")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_clean_model_passes(here):
    answer = call("lint", f"{here}:clean")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("watched: vq, 16 codes")
    assert "0 problems, 0 warnings" in answer.out


def test_a_warning_is_told_and_no_failure(here):
    answer = call("lint", f"{here}:decayed")
    assert answer.code == 0
    assert "warning: weight-decay" in answer.out


def test_a_problem_is_a_failure_and_kept_with_the_run(here, tmp_path):
    answer = call("lint", f"{here}:left_out", "--out", "run")
    assert answer.code == 1
    assert "problem: optimizer" in answer.out
    kept = [json.loads(line) for line in (tmp_path / "run" / "findings.jsonl").read_text().splitlines()]
    assert [finding["check"] for finding in kept] == ["optimizer"]
    assert kept[0]["evidence"]["attribute"] == "vq._codebook.embed"


@pytest.mark.slow
def test_ranks_are_started_and_share_the_batch(here):
    answer = call("lint", f"{here}:not_shared", "--ranks", "2")
    assert answer.code == 1, answer.err
    assert answer.out.splitlines()[:5] == [
        "starting 2 processes",
        "the factory gave every rank the same batch: each takes 1/2 of it, along the first axis",
        "the model is wrapped in DistributedDataParallel",
        "watched: vq, 16 codes",
        "2 ranks; gradients are averaged by the model's wrapper",
    ]
    assert "128 tokens a step" in answer.out  # its own: codes that parted are not judged by the tokens of others
    assert "problem: replicas\n  the codes of module.vq differ between ranks" in answer.out


@pytest.mark.slow
def test_what_a_rank_refuses_is_told_in_one_line(here):
    refused(call("lint", f"{here}:uneven", "--ranks", "2"), "the batch of 3 cannot be divided among 2 ranks: make it 4")


def test_findings_take_the_place_of_those_of_the_lint_before(here, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    append_finding(run.findings, Finding("not-finite", "problem", "the loss is not finite"))
    for factory, found in (("left_out", ["optimizer"]), ("left_out", ["optimizer"]), ("clean", [])):
        call("lint", f"{here}:{factory}", "--out", run.path)
        kept = [json.loads(line)["check"] for line in run.findings.read_text().splitlines()]
        assert kept == ["not-finite", *found]


def test_a_model_alone_is_judged_as_it_stands(here):
    answer = call("lint", f"{here}:alone")
    assert answer.code == 0, answer.err
    assert "no batch was given" in answer.out


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("a_number", "should return model or (model, batch, loss, optimizer), where model is a torch.nn.Module; it"),
        ("a_pair", "it returned (Stranger, NoneType)"),
        ("no_loss", "its loss is int and cannot be called"),
        ("no_codebook", "no quantizer recognised in Linear"),
        ("fails", "failed: RuntimeError: no data here"),
        ("constant", "is int and no function"),
        ("cleen", "did you mean 'clean'?"),
    ],
)
def test_a_factory_that_is_none_is_told_in_one_line(here, factory, told):
    refused(call("lint", f"{here}:{factory}"), told)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("train", "'train' should be MODULE:FACTORY, as in train:make"),
        ("no_such_module_anywhere:make", "there is no module 'no_such_module_anywhere'"),
    ],
)
def test_a_module_that_is_not_there_is_told_in_one_line(here, spec, told):
    refused(call("lint", spec), told)


def test_a_module_that_cannot_be_imported_is_told_in_one_line(here):
    answer = call("lint", f"{here}_broken:make")
    refused(answer, "cannot be imported: ModuleNotFoundError: No module named 'nothing_of_that_name'")


def test_the_checks_are_listed_with_their_questions():
    lines = call("explain").out.splitlines()
    assert [line.split()[0] for line in lines] == [*CHECKS]
    assert all(line.endswith("?") for line in lines)


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_is_explained(name):
    words = " ".join(call("explain", name).out.split())
    check = CHECKS[name]
    for text in (check.question, check.measures, check.matters, check.advice, check.source):
        assert text.split("`")[0].strip()[:60] in words


def test_a_check_that_is_none_is_told_with_the_nearest():
    refused(call("explain", "straight-thru"), "did you mean 'straight-through'?")
