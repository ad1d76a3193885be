"""Reports of models that vqtool did not train, and of traces that know less than ours of today."""

import re
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import write_run, write_trace
from synthetic_stranger import write_stranger

from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.recording.records import CodebookRecord
from vqtool.diagnostics.recording.rows import BoundaryRow, DigitsRow, GeometryRow
from vqtool.diagnostics.recording.sinks import TraceSink
from vqtool.diagnostics.run import RunDirectory, find_runs
from vqtool.reports import write_report


def drawn(run, codebook="quantizer"):
    """The figures of a codebook, without its name."""
    return {path.stem.removeprefix(f"{codebook}-") for path in (run.report / "figures").glob(f"{codebook}-*.png")}


def text_of(run):
    return (run.report / "index.html").read_text()


def rewrite(folder, **columns):
    """Put other values, or none, into columns of a trace."""
    for part in folder.glob("part-*.parquet"):
        frame = pq.read_table(part).to_pandas().assign(**columns)
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), part)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A reported run of one codebook with all its tables."""
    run = write_stranger(tmp_path_factory.mktemp("strangers") / "theirs")
    write_report(run.path)
    return run


IN_TIME = {"usage", "rank-frequency", "collapse", "gradients", "gradient-histogram", "survival", "hazard"}
NORMS = {"norm-histogram", "norm-in-time", "norm-against-hits"}
TABLES = {"boundary", "estimator", "movement", "attraction", "latents", "terms", "geometry", "snapshot"}


def test_a_run_of_a_model_of_others_has_every_figure_that_its_tables_give(stranger):
    assert drawn(stranger) == IN_TIME | NORMS | TABLES


def test_its_page_says_what_is_not_there_once_and_has_no_empty_sections(stranger):
    text = text_of(stranger)
    assert text.count("vqtool did not train this model") == 1
    assert 'class="missing"' not in text
    for heading in ("Training", "Config", "Environment", "Last numbers"):
        assert f"<h2>{heading}" not in text


def test_its_facts_come_from_the_trace(stranger):
    text = text_of(stranger)
    assert "32 codes, recorded up to step 100" in text
    assert re.search(r"<b>[\d.]+ % of a [\d.]+ % ceiling</b>", text)
    assert re.search(r"\d+ of 32 codes used; the ceiling is what even use would show", text)


def test_captions_speak_with_the_numbers_of_the_run(stranger):
    text = text_of(stranger)
    for words in (
        "Named: straight-through in 8 of 8 steps.",
        "of weight 0.25, its median",
        "The decoder&#39;s gradient is 2.5 times the commitment&#39;s",
        "with lr 0.001 at first, 0.0005 at last and weight decay 0.01",
        "the most used codes go 0.01 a step and the centroids of their latents 0.03",
        "at step 40: reconstruction 0.01, commitment 0.0025",
        "Mean |z| goes from 1 to 3 (3 times)",
        "64 latents (grey) and the codebook after 0 steps and after 40 steps",
    ):
        assert words in text, words


def test_geometry_then_and_now_is_a_table_with_what_it_says(stranger):
    frame = pd.read_csv(stranger.report / "tables" / "quantizer-geometry.csv")
    assert frame["step"].tolist() == [0, 20, 40]
    assert frame["offset"].iloc[0] > 2.2 > frame["offset"].iloc[-1]
    assert "Above 2.2 at step 0 a few codes on the near side get all latents." in text_of(stranger)


def test_only_what_is_recorded_is_drawn(tmp_path):
    run = write_stranger(tmp_path / "run")
    shutil.rmtree(run.table("geometry"))
    shutil.rmtree(run.snapshots)
    write_report(run.path)
    assert drawn(run) == (IN_TIME | NORMS | TABLES) - {"geometry", "snapshot"}
    assert 'class="missing"' not in text_of(run)


def test_a_broken_table_hides_nothing_but_itself(tmp_path):
    run = write_stranger(tmp_path / "run", T=1)
    (part,) = (run.table("boundary") / "quantizer").iterdir()
    part.write_text("no parquet")
    write_report(run.path)
    assert text_of(run).count("Not shown: cannot read") == 1
    assert TABLES - drawn(run) == {"boundary", "estimator"}


def test_a_table_of_one_row_is_shown_in_numbers(tmp_path):
    run = RunDirectory(tmp_path)
    sink = TraceSink(run.path)
    sink.write_row(BoundaryRow(codebook="quantizer", step=1, ratio=1.5, estimator="rotation"))
    sink.flush()
    write_trace(run.trace / "quantizer", np.full((1, 8), 8))
    write_report(run.path)
    assert not {"boundary", "estimator"} & drawn(run)
    told = pd.read_csv(run.report / "tables" / "quantizer-boundary.csv", index_col="quantity")
    assert told["value"].to_dict() == {"ratio": "1.5", "estimator": "rotation"}
    assert "Boundary, measured once (step 1)" in text_of(run)


def test_layers_stand_in_their_order_below_a_table_of_all(tmp_path):
    layers = [f"quantizer.layers.{number}" for number in (0, 1, 9, 10)]
    run = write_stranger(tmp_path / "run", *layers, K=8, T=1, tables=False)
    write_report(run.path)
    text = text_of(run)
    assert "4 codebooks of 8 codes" in text
    assert pd.read_csv(run.report / "tables" / "codebooks.csv")["codebook"].tolist() == layers
    places = [text.index(f"<h2>Codebook {layer}<") for layer in layers]
    assert text.index("<h3>Codebooks</h3>") < places[0]
    assert places == sorted(places)
    assert text.count("<details>") == text.count("</details>") == 4
    assert all(f"codebook {layer} used" in text for layer in layers)


def test_resets_that_cannot_be_known_are_said_to_be_so_and_not_counted(tmp_path):
    run = write_stranger(tmp_path / "run", T=2, tables=False)
    rewrite(run.trace / "quantizer", resets=lambda frame: np.where(frame["code"] == 3, np.nan, frame["code"] == 4))
    write_report(run.path)
    text = text_of(run)
    assert "In 2 records of 2 some codes without hits jumped" in text
    assert "Codes that were re-initialised, 2 in 2 records." in text


def test_a_codebook_without_a_table_of_codes_is_shown_without_norms(tmp_path):
    run = write_stranger(tmp_path / "run", T=2, tables=False)
    rewrite(run.trace / "quantizer", **dict.fromkeys(("resets", "norm", "drift", "grad_norm"), np.nan))
    write_report(run.path)
    assert drawn(run) == IN_TIME
    assert "Whether its codes are re-initialised cannot be known" in text_of(run)


def test_a_trace_of_an_older_version_is_shown(tmp_path):
    """Resets were whole numbers, and there were no tables."""
    run = write_run(tmp_path / "run", T=2)
    rewrite(run.trace / "quantize", resets=0)
    assert pq.read_schema(next((run.trace / "quantize").iterdir())).field("resets").type == pa.int64()
    write_report(run.path)
    assert drawn(run, "quantize") == IN_TIME | NORMS
    assert "cannot be known" not in text_of(run)


def test_a_pass_of_a_trained_model_is_shown_as_one(tmp_path):
    run, sink = RunDirectory(tmp_path), TraceSink(tmp_path)
    hits = np.array([6, 2, 0, 0])
    nothing = np.full(4, np.nan, np.float32)
    norm = np.ones(4, np.float32)
    sink.write(CodebookRecord("vq", 0, 16, hits, norm, norm, nothing, nothing, nothing, nothing))
    for scale in (1.0, 2.0, 3.0):  # of every batch
        sink.write_row(GeometryRow(codebook="vq", step=0, sample=8, scale=scale))
    sink.flush()
    write_report(run.path)
    text = text_of(run)
    assert "one pass of a trained model, measured without training" in text
    assert "Codebook vq used 2 of 4 codes over the whole pass (8 tokens), 50.0 % of a 90.0 % ceiling" in text
    assert "since when" not in text
    assert pd.read_csv(run.report / "tables" / "vq-geometry.csv")["scale"].tolist() == [3.0]
    assert "<b>50.0 % of a 90.0 % ceiling</b>2 of 4 codes used" in text
    assert (
        "no verdict, and no code is called dead: 8 tokens, fewer than the 32 (8 per code) that a verdict takes." in text
    )
    assert drawn(run, "vq") == {"rank-frequency", "norm-histogram", "norm-against-hits"}


def test_a_codebook_of_too_many_codes_for_a_trace_is_a_run_of_digits(tmp_path):
    run, sink = RunDirectory(tmp_path), TraceSink(tmp_path)
    values = {"levels": (2,) * 20, "hits": (50, 50) * 20, "tokens": 100, "codes_seen": 99.0, "counted_exactly": False}
    sink.write_row(DigitsRow(codebook="lfq", step=10, window=10, forwards=10, **values))
    sink.flush()
    write_report(run.path)
    text = text_of(run)
    assert "1,048,576 codes, recorded up to step 10" in text
    assert "<b>0.0094 % of a 0.0095 % ceiling</b>99 of 1,048,576 codes used" in text
    assert drawn(run, "lfq") == {"digits"}


def test_strangers_are_compared_each_by_its_own_name(tmp_path):
    write_stranger(tmp_path / "lab" / "one", T=2)
    write_stranger(tmp_path / "other" / "one", "vq.layers.0", "vq.layers.1", T=2)
    text = write_report(tmp_path).read_text()
    assert "2 runs of 2 models" in text
    frame = pd.read_csv(tmp_path / "report" / "tables" / "codebooks.csv")
    assert frame["run"].tolist() == ["lab/one", "other/one", "other/one"]
    assert "<h2>Codebook quantizer, vq.layers.0<" in text
    moved = pd.read_csv(tmp_path / "report" / "tables" / "mechanisms.csv")
    assert moved["estimator"].eq("straight-through").all()
    assert moved["commitment"].eq(0.25).all()
    assert 'class="missing"' not in text
    assert "<h2>Training" not in text


def test_a_stranger_beside_our_runs_is_compared_by_its_trace_and_never_mixed_with_their_seeds(tmp_path):
    write_run(tmp_path / "ours", "ema", T=2)
    write_stranger(tmp_path / "ema", T=2, tables=False)
    text = write_report(tmp_path).read_text()
    assert "2 runs, 2 models (ema: n = 1, folder ema: n = 1)" in text
    assert pd.read_csv(tmp_path / "report" / "tables" / "comparison.csv")["quantizer"].tolist() == ["ema"]
    assert pd.read_csv(tmp_path / "report" / "tables" / "codebooks.csv")["run"].tolist() == ["ema", "folder ema"]


def test_passes_of_trained_models_are_compared_in_numbers_and_not_over_time(tmp_path):
    for name in ("a", "b"):
        sink, norm = TraceSink(tmp_path / name), np.ones(4, np.float32)
        sink.write(CodebookRecord("vq", 0, 16, np.array([6, 2, 0, 0]), *[norm] * 6))
        sink.flush()
    text = write_report(tmp_path).read_text()
    assert pd.read_csv(tmp_path / "report" / "tables" / "codebooks.csv")["codes_used"].tolist() == [2, 2]
    assert "<img" not in text
    assert 'class="missing"' not in text


def test_a_folder_that_is_no_run_is_refused_with_what_would_make_it_one(tmp_path):
    (tmp_path / "trace").mkdir()
    with pytest.raises(InputError, match=r"config\.yaml.*vqtool train.*trace/.*TraceSink") as refusal:
        find_runs(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_run_of_others_has_no_settings_and_says_so_in_one_line(tmp_path):
    run = write_stranger(tmp_path / "run", T=1, tables=False)
    assert (run.is_run, run.has_config, run.stage) == (True, False, "vqgan")
    with pytest.raises(InputError, match=r"is not a run that vqtool trained: it has no config\.yaml$"):
        run.read_config()


def test_codebooks_with_too_few_tokens_get_no_verdict_and_no_dead_code(tmp_path):
    sink, norm = TraceSink(tmp_path), np.ones(64, np.float32)
    for name, tokens in (("first", 64), ("second", 64), ("third", 5120)):
        sink.write(CodebookRecord(name, 10, 10, np.r_[np.full(32, tokens // 32), np.zeros(32, int)], *[norm] * 6))
    sink.flush()
    text = write_report(tmp_path).read_text()
    first, third = (text.index(f"<h2>Codebook {name}") for name in ("first", "third"))
    assert "No verdict on first, second: 64 tokens, fewer than the 512 (8 per code) that a verdict takes." in text
    assert "50.0 % of a 63.5 % ceiling; no verdict, and no code is called dead: 64 tokens" in text[first:third]
    assert "dead codes" not in text[first:third]
    assert "32 codes had no hit in the last record (10 steps, 64 tokens, too few for a verdict), 32 had" in text[first:]
    assert "dead codes (32) had no hit in the last record (10 steps, 5,120 tokens), live ones (32) had" in text[third:]
