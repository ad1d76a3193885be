"""The figures of a second stage over a split, and the tables behind them."""

import json
import math

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from vqtool.diagnostics import RunDirectory
from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.stats.gap import total_variation_interval
from vqtool.vqgan.launch import evaluate, train
from vqtool.vqgan.transformer import evaluation
from vqtool.vqgan.transformer.evaluation import evaluate_codes, sample_split
from vqtool.vqgan.transformer.likelihood import likelihood
from vqtool.vqgan.transformer.settings import SamplingSettings
from vqtool.vqgan.transformer.tokens import codes_of, hits

K, N, SIZE = 16, 16, 16
CPU = torch.device("cpu")
CLASS = {"condition": {"kind": "class", "drop": 0.1}}
FIGURES = [
    *("split", "images", "tokens", "grid", "codebook_size", "nll", "top1", "top5", "top10", "dead_mass"),
    *("bits_per_dim", "token_perplexity", "samples", "sampling", "total_variation", "total_variation_low"),
    *("total_variation_high", "total_variation_floor", "codes_in_train", "codes_in_split", "codes_sampled"),
    *("unlearned_codes", "fid", "missing"),
]


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    """An empty torch hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def train_hits(tokenizer, splits, tmp_path_factory):
    """Hits of the training split, but for codes 2 and 11: those are as if they had never occurred."""
    total = hits(codes_of(tokenizer, splits["train"], tmp_path_factory.mktemp("cache")), K)
    assert total.all()
    total[[2, 11]] = 0
    return total


@pytest.fixture
def evaluated(code_model, tokenizer, train_hits):
    """A function from a model and a split to what an evaluation finds."""

    def run(model, split, **settings):
        return evaluate_codes(model, tokenizer, split, train_hits, SamplingSettings(**settings), "test")

    return run


@pytest.fixture
def found(evaluated, code_model):
    """The evaluation of a random model, over 16 images' worth of samples."""
    return evaluated(*code_model(**CLASS), count=16)


def plant(model, grid):
    """Make ``model`` certain of one image (4, 4), whatever it has read."""
    gpt, codes = model.gpt, model.sequence(torch.as_tensor(np.asarray(grid).astype(np.int64))[None])[0]
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.zero_()
        gpt.ln_f.weight.fill_(1)
        gpt.ln_f.bias.fill_(1 / math.sqrt(N - 1))  # of a normalised unit vector all features but one are zero
        gpt.pos_emb[0, :N] = torch.eye(N)  # a place is told by its feature, a code by the place
        gpt.head.weight[codes, torch.arange(N)] = 30
    return model


def remembered(split):
    """An image of the split, (4, 4), with another code in the place of those that count as dead."""
    image = np.array(split.codes[4])
    return np.where(np.isin(image, [2, 11]), 0, image)


# ---- figures


def test_every_figure_has_its_name(found):
    assert sorted(found.figures) == sorted(FIGURES)
    assert json.loads(json.dumps(found.figures)) == found.figures


def test_figures_of_likelihood_are_those_of_the_whole_split(found, code_model, train_hits):
    model, split = code_model(**CLASS)
    expected = likelihood(model, split, np.arange(8), torch.tensor([2, 11])).figures()
    assert {name: found.figures[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert found.figures["token_perplexity"] == pytest.approx(math.exp(expected["nll"]))
    assert found.figures["dead_mass"] > 0


def test_bits_are_counted_per_dimension_of_the_image(found):
    nats_of_an_image = found.figures["nll"] * 4 * 4
    assert found.figures["bits_per_dim"] == pytest.approx(nats_of_an_image / math.log(2) / (3 * 16 * 16), rel=1e-9)


def test_sizes_are_told(found):
    sizes = {"images": 8, "tokens": 8 * N, "grid": [4, 4], "codebook_size": K, "samples": 16, "split": "test"}
    assert {name: found.figures[name] for name in sizes} == sizes


def test_how_it_was_sampled_is_told(evaluated, code_model):
    settings = {"temperature": 0.9, "top_k": 7, "top_p": 0.8, "guidance": 2.0, "seed": 5}
    assert evaluated(*code_model(**CLASS), count=2, **settings).figures["sampling"] == settings
    assert evaluated(*code_model(**CLASS), count=2, greedy=True).figures["sampling"]["greedy"] is True


def test_without_the_weights_of_inception_there_is_no_fid_but_a_reason(found):
    assert found.figures["fid"] is None
    assert list(found.figures["missing"]) == ["fid"]
    assert "weights-inception-2015-12-05-6726825d.pth" in found.figures["missing"]["fid"]


def test_fid_is_between_the_split_and_the_decoded_samples(evaluated, code_model, tokenizer, splits, monkeypatch):
    class Distance:
        """What it is given; the real one needs weights from elsewhere."""

        missing = {}  # noqa: RUF012
        real: list = []  # noqa: RUF012
        made: list = []  # noqa: RUF012

        def __init__(self, device):
            self.update_real, self.update_samples = self.real.append, self.made.append

        def compute(self):
            return {"fid": 12.5}

    monkeypatch.setattr(evaluation, "SampleDistance", Distance)
    monkeypatch.setattr(evaluation, "BATCH", 3)
    model, split = code_model(**CLASS)
    picture = remembered(split)
    figures = evaluated(plant(model, picture), split, count=4).figures
    assert (figures["fid"], figures["missing"]) == (12.5, {})
    images = splits["test"].batch(range(8))[0]
    torch.testing.assert_close(torch.cat(Distance.real), images / 127.5 - 1)
    known = torch.from_numpy(picture.astype(np.int64))
    torch.testing.assert_close(torch.cat(Distance.made), tokenizer.decode(known[None]).expand(4, -1, -1, -1))


# ---- samples against the data


def test_the_gap_is_that_of_the_tables(found, code_model):
    data, sampled = (counts / counts.sum() for counts in (found.codes.data, found.codes.sampled))
    assert found.figures["total_variation"] == pytest.approx(np.abs(data - sampled).sum() / 2, rel=1e-9)
    assert 0 <= found.figures["total_variation_low"] <= found.figures["total_variation_high"] <= 1
    assert 0 < found.figures["total_variation_floor"] < 1


def test_a_split_of_one_image_has_no_gap_but_a_reason(evaluated, code_model):
    model, split = code_model()
    split.codes = split.codes[:1]
    figures = evaluated(model, split).figures
    assert figures["total_variation"] is figures["total_variation_high"] is None
    assert "one image" in figures["missing"]["total_variation"]


def test_the_gap_is_reckoned_over_images(evaluated, code_model, train_hits):
    model, split = code_model(**CLASS)
    sampled = sample_split(model, split, train_hits, SamplingSettings(count=20), CPU)
    gap = total_variation_interval(np.array(split.codes).reshape(8, N), sampled.reshape(20, N), K)
    figures = evaluated(model, split, count=20).figures
    names = [f"total_variation{end}" for end in ("", "_low", "_high", "_floor")]
    assert [figures[name] for name in names] == pytest.approx(list(gap), rel=1e-9)


def test_a_model_that_has_memorised_one_image_is_as_far_from_the_data_as_that_image(evaluated, code_model):
    model, split = code_model(**CLASS)
    image = remembered(split)
    found = evaluated(plant(model, image), split, count=40)
    shares = [np.bincount(codes.ravel(), minlength=K) / codes.size for codes in (np.array(split.codes), image)]
    distance = np.abs(shares[0] - shares[1]).sum() / 2
    assert distance > 0.2
    assert found.figures["total_variation"] == pytest.approx(distance, rel=1e-9)
    assert found.figures["total_variation_low"] <= distance <= found.figures["total_variation_high"]
    assert found.figures["codes_sampled"] == len(np.unique(image))
    assert (found.codes.sampled == 40 * np.bincount(image.ravel(), minlength=K)).all()
    drawn = found.positions.frame().query("sampled > 0")
    assert (drawn["sampled"] == 40).all()
    assert (drawn["code"].to_numpy() == image[drawn["row"], drawn["column"]]).all()
    assert len(drawn) == N


def test_codes_that_never_occurred_are_not_sampled_whatever_the_model_says(evaluated, code_model):
    model, split = code_model(**CLASS)
    found = evaluated(plant(model, np.full((4, 4), 11)), split, count=10)
    assert found.figures["dead_mass"] == pytest.approx(1)
    assert found.codes.sampled[[2, 11]].tolist() == [0, 0]
    assert found.codes.sampled.sum() == 10 * N
    assert found.figures["codes_in_train"] == K - 2


def test_samples_are_evenly_spread_over_the_conditions_of_the_split(code_model, train_hits, monkeypatch):
    model, split = code_model(**CLASS)
    rows, batch = [], split.batch
    monkeypatch.setattr(split, "batch", lambda chosen: rows.extend(chosen.tolist()) or batch(chosen))
    monkeypatch.setattr(evaluation, "BATCH", 5)
    for count, expected in ((12, [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7]), (3, [0, 2, 5]), (8, list(range(8)))):
        rows.clear()
        assert sample_split(model, split, train_hits, SamplingSettings(count=count), CPU).shape == (count, 4, 4)
        assert rows == expected


def test_samples_of_a_class_are_those_of_its_token(code_model, train_hits, splits):
    model, split = code_model(**CLASS)
    plant(model, np.array([[0, 5, 0, 0], *np.zeros((3, 4))]))
    with torch.no_grad():  # after the token of the second class the first place looks like the second one
        model.gpt.tok_emb.weight[17, 1] = 10
    sampled = sample_split(model, split, train_hits, SamplingSettings(count=8), CPU)
    labels = splits["test"].labels.numpy()
    assert set(labels.tolist()) == {0, 1}
    assert (sampled[:, 0, 0] == 5 * labels).all()


def test_the_seed_decides_about_the_samples(code_model, train_hits):
    model, split = code_model(**CLASS)
    first, again, other = (
        sample_split(model, split, train_hits, SamplingSettings(count=6, seed=seed), CPU) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_batches_of_samples_differ(code_model, train_hits, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", 4)
    model, split = code_model()
    sampled = sample_split(model, split, train_hits, SamplingSettings(count=8), CPU)
    assert not np.array_equal(sampled[:4], sampled[4:])


@pytest.mark.parametrize("ranks", [2, 5])
def test_ranks_share_the_samples_and_draw_with_seeds_of_their_own(code_model, train_hits, monkeypatch, ranks):
    model, split = code_model()
    monkeypatch.setattr(evaluation, "_from_all_ranks", lambda codes: codes)
    parts = []
    for rank in range(ranks):
        monkeypatch.setattr(evaluation, "rank_and_size", lambda rank=rank: (rank, ranks))
        parts.append(sample_split(model, split, train_hits, SamplingSettings(count=4), CPU))
    assert [len(part) for part in parts] == {2: [2, 2], 5: [1, 1, 1, 1, 0]}[ranks]
    assert all(part.shape[1:] == (4, 4) and part.dtype == np.int64 for part in parts)
    assert not np.array_equal(parts[0], parts[1])


def test_guidance_and_filters_reach_the_samples(code_model, train_hits):
    model, split = code_model(**CLASS)
    plain, *others = (
        sample_split(model, split, train_hits, SamplingSettings(count=8, **settings), CPU)
        for settings in ({}, {"guidance": 3.0}, {"top_k": 2}, {"top_p": 0.3}, {"temperature": 3.0})
    )
    assert not any(np.array_equal(plain, other) for other in others)
    for likeliest in ({"top_k": 1}, {"greedy": True}):
        settings = [SamplingSettings(count=8, seed=seed, **likeliest) for seed in (0, 1)]
        assert np.array_equal(*(sample_split(model, split, train_hits, each, CPU) for each in settings))


def test_an_evaluation_leaves_the_model_in_its_mode(evaluated, code_model):
    model, split = code_model(transformer={"dropout": 0.5, "pkeep": 0.0})
    twin, _ = code_model()
    figures = evaluated(model.train(), split, count=2).figures
    assert model.training
    assert model.gpt.training
    assert figures == evaluated(twin, split, count=2).figures


# ---- tables


def test_the_tables_agree_with_the_figures(found, train_hits):
    codes, positions, figures = found.codes.frame(), found.positions.frame(), found.figures
    assert codes["code"].tolist() == list(range(K))
    assert (codes["train"] == train_hits).all()
    for table in (codes, positions):
        assert table["data"].sum() == figures["tokens"]
        assert table["sampled"].sum() == figures["samples"] * N
        assert (table["nll"] * table["data"]).sum() / figures["tokens"] == pytest.approx(figures["nll"], rel=1e-5)
    for column, figure in (("train", "codes_in_train"), ("data", "codes_in_split"), ("sampled", "codes_sampled")):
        assert (codes[column] > 0).sum() == figures[figure]


def test_positions_are_the_codes_taken_apart(found, code_model):
    positions = found.positions.frame()
    weighted = positions.assign(nll=positions["nll"].fillna(0) * positions["data"])
    summed = weighted.groupby("code")[["data", "sampled", "nll"]].sum().reindex(range(K), fill_value=0)
    assert (summed["data"] == found.codes.data).all()
    assert (summed["sampled"] == found.codes.sampled).all()
    expected = np.nan_to_num(found.codes.nll) * found.codes.data
    np.testing.assert_allclose(summed["nll"], expected, rtol=1e-5)
    split = code_model(**CLASS)[1]
    for row in positions.itertuples():
        assert row.data == (split.codes[:, row.row, row.column] == row.code).sum()
    assert ((positions["data"] > 0) | (positions["sampled"] > 0)).all()
    assert not positions.duplicated(["row", "column", "code"]).any()


def test_what_was_no_target_has_no_likelihood(evaluated, code_model):
    model, split = code_model(**CLASS)
    split.codes = np.where(np.array(split.codes) == 5, 6, split.codes)
    found = evaluated(model, split, count=30)
    assert np.isnan(found.codes.nll).tolist() == [code == 5 for code in range(K)]
    assert found.codes.sampled[5] > 0
    assert (np.isnan(found.positions.nll) == (found.positions.data == 0)).all()
    assert found.figures["codes_in_split"] == K - 1


def test_unlearned_codes_are_those_predicted_no_better_than_by_their_frequency(evaluated, code_model, train_hits):
    model, split = code_model(**CLASS)
    with torch.no_grad():
        model.gpt.head.weight.mul_(0.05)  # near uniform: rare codes are predicted better than by frequency, others not
    codes, figures = (found := evaluated(model, split, count=2)).codes, found.figures
    unlearned = 0
    for code in range(K):
        if codes.data[code] and train_hits[code]:
            unlearned += codes.nll[code] >= -math.log(train_hits[code] / train_hits.sum())
    assert 0 < unlearned < K
    assert figures["unlearned_codes"] == unlearned


def test_a_model_that_knows_all_has_learned_every_code(evaluated, code_model):
    model, split = code_model(**CLASS)
    image = remembered(split)
    split.codes = np.broadcast_to(image, (8, 4, 4)).copy()
    found = evaluated(plant(model, image), split, count=40)
    assert found.figures["unlearned_codes"] == 0
    assert found.figures["nll"] == pytest.approx(0, abs=1e-6)
    assert found.figures["total_variation"] == 0


def test_the_tables_on_disk_have_their_columns_and_types(found, tmp_path):
    run = RunDirectory(tmp_path)
    found.write(run, "test")
    numbers = [("data", "int64"), ("sampled", "int64"), ("nll", "float")]
    for path, own in (
        (run.codes("test"), [("code", "int32"), ("train", "int64")]),
        (run.positions("test"), [("row", "int32"), ("column", "int32"), ("code", "int32")]),
    ):
        schema = pq.read_schema(path)
        assert list(zip(schema.names, map(str, schema.types), strict=True)) == own + numbers
    pd.testing.assert_frame_equal(pd.read_parquet(run.codes("test")), found.codes.frame())
    pd.testing.assert_frame_equal(pd.read_parquet(run.positions("test")), found.positions.frame())
    missing = pq.read_table(run.positions("test"))["nll"].null_count  # null, which is not NaN
    assert missing == (found.positions.data == 0).sum() > 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "codes-test.parquet",
        "positions-test.parquet",
    ]


# ---- of a run


@pytest.fixture(scope="module")
def run(second_stage, tmp_path_factory):
    """A finished run of the second stage."""
    folder = tmp_path_factory.mktemp("runs") / "second"
    config = second_stage(train={"steps": 2, "validate_every": None}, **CLASS)
    assert train(config, folder) == "done"
    return RunDirectory(folder)


def test_a_run_is_evaluated_from_its_folder(run, tokenizer):
    figures = evaluate(run, "validation", device="cpu")
    assert sorted(figures) == sorted(["checkpoint", "step", *FIGURES])
    assert (figures["checkpoint"], figures["step"], figures["split"]) == ("last", 2, "validation")
    assert json.loads(run.evaluation("validation").read_text()) == figures
    assert pd.read_parquet(run.codes("validation"))["data"].sum() == figures["tokens"]
    assert pd.read_parquet(run.positions("validation"))["sampled"].sum() == figures["samples"] * N


def test_the_evaluation_at_the_end_of_a_run_is_that_of_its_last_checkpoint(run):
    at_the_end = json.loads(run.evaluation("test").read_text())
    again = evaluate(run, "test", device="cpu")
    numbers = sorted(set(FIGURES) - {"missing"})
    assert [again[name] for name in numbers] == [at_the_end[name] for name in numbers]


def test_a_checkpoint_that_was_not_kept_is_told(run):
    (run.checkpoints / "best.ckpt").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"^no checkpoint .*best\.ckpt"):
        evaluate(run, "test", checkpoint="best", device="cpu")
