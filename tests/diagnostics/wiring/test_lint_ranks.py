"""The lint on every rank of a group: what parts the ranks is named, what does not is as in one process."""

import pytest
import torch
import torch.multiprocessing
from wiring.linted import FAILING, TRIED, lint_all, table
from wiring.replicas import CODEBOOK, RANKS, REPLICA_BUGS, REPLICA_CLEAN

from vqtool.diagnostics import InputError, lint
from vqtool.diagnostics.wiring.checks.fits import codebook_pull
from vqtool.diagnostics.wiring.processes import fingerprint, share

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Of each rank the reports, and how it was refused."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(lint_all, args=(folder,), nprocs=RANKS)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(RANKS)]


def flags(report):
    return [finding for finding in report.findings if finding.severity != "info"]


def reports(ranks, name):
    return [told[name][0] for told, _ in ranks]


@pytest.mark.parametrize("name", [*REPLICA_BUGS, "averages of its own"])
def test_ranks_that_part_are_named_with_their_quantizer(ranks, name):
    for report in reports(ranks, name):
        (found,) = (finding for finding in flags(report) if finding.check == "replicas")
        assert CODEBOOK.startswith(found.evidence["attribute"].removeprefix("module."))
        assert found.evidence["difference"] > 0.01


@pytest.mark.parametrize("name", [*REPLICA_CLEAN, "wrapped", "not wrapped"])
def test_ranks_that_stay_alike_are_not(ranks, name):
    for report in reports(ranks, name):
        assert flags(report) == []
        assert "replicas" in report.passed


@pytest.mark.parametrize("name", ["wrapped", "not wrapped"])
def test_ranks_that_share_a_batch_see_what_one_process_sees(ranks, name):
    (alone,) = lint(*table()).trial.seen.values()
    for report in reports(ranks, name):
        (seen,) = report.trial.seen.values()
        assert seen.ranks_apart == 0
        assert seen.tokens == alone.tokens
        assert codebook_pull(seen) == pytest.approx(codebook_pull(alone), rel=1e-3)
        assert seen.steps[0].latents == pytest.approx(alone.steps[0].latents, abs=1e-5)
        assert seen.tables[-1] == pytest.approx(alone.tables[-1], abs=1e-4)


@pytest.mark.parametrize("name", list(TRIED))
def test_every_rank_is_told_the_same_and_left_as_it_was(ranks, name):
    first, *others = reports(ranks, name)
    for other in others:
        assert {(f.check, f.codebook) for f in other.findings} == {(f.check, f.codebook) for f in first.findings}
    assert all(report.trial.not_done == {} for report in (first, *others))
    assert all(told[name][1] for told, _ in ranks)


def test_one_batch_for_all_is_no_ground_to_judge_by(ranks):
    for report in reports(ranks, "one batch for all"):
        (skip,) = (skip for skip in report.skipped if skip.check == "replicas")
        assert "every rank was given the same latents" in skip.why


def test_who_averages_gradients_is_told(ranks):
    wrapped, plain = (reports(ranks, name)[0].watched for name in ("wrapped", "not wrapped"))
    assert "2 ranks; gradients are averaged by the model's wrapper" in wrapped
    assert "2 ranks; gradients are averaged by the lint" in plain


def test_a_loss_that_uses_methods_of_the_model_is_not_kept_from_them(ranks):
    for told, _ in ranks:
        report, lines = told["by methods"]
        assert flags(report) == []
        assert "replicas" in report.passed
        assert lines[0].startswith("the factory gave every rank the same batch: each takes 1/2")
        assert lines[1] == "the model is not wrapped: the loss uses quantize, which DistributedDataParallel has not got"
        assert "gradients are averaged by the lint" in report.watched


@pytest.mark.parametrize("name", FAILING)
def test_no_rank_waits_for_one_that_failed(ranks, name):
    lines, seconds = zip(*(refused[name] for _, refused in ranks), strict=True)
    assert all(lines)
    assert max(seconds) < 20
    if name == "failing":
        assert lines[0] == f"on rank 1: {lines[1]}"
    else:
        assert "ranks call different quantizers in the same step: rank 0 quantize, rank 1 none" in lines[0]


def test_a_lint_on_one_rank_alone_says_that_all_have_to_call_it(ranks):
    line, _ = ranks[0][1]["alone"]
    assert "rank 1 did not come to this point" in line
    assert "call lint on every rank" in line


def test_a_batch_is_shared_along_its_first_axis():
    batch = {"x": torch.arange(8.0), "y": [torch.arange(16).view(8, 2), "name"], "scale": torch.tensor(3.0)}
    parts = [share(batch, rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([part["x"] for part in parts]), batch["x"])
    assert torch.equal(torch.cat([part["y"][0] for part in parts]), batch["y"][0])
    assert all(part["scale"] == 3 and part["y"][1] == "name" for part in parts)


@pytest.mark.parametrize(
    ("batch", "line"),
    [
        (torch.zeros(7, 2), "the batch of 7 cannot be divided among 2 ranks: make it 8"),
        ((torch.zeros(4), torch.zeros(6)), "tensors of lengths 4, 6"),
        ("a path", "str with no tensor"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_told_in_one_line(batch, line):
    with pytest.raises(InputError, match=line):
        share(batch, 0, 2)


def test_batches_are_told_apart_by_a_single_bit():
    batch = {"x": torch.randn(4, 3), "name": "a"}
    other = {"x": batch["x"].clone(), "name": "a"}
    assert fingerprint(batch) == fingerprint(other)
    other["x"][3, 2] = torch.nextafter(other["x"][3, 2], torch.tensor(9.0))
    assert fingerprint(batch) != fingerprint(other)
