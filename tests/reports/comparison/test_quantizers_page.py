import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import write_run

from vqtool.diagnostics.ablation import AblationDirectory
from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.run import RunDirectory
from vqtool.reports import write_report
from vqtool.reports.codebook import heatmaps

SPECS = ("standard", "ema+reset", "gumbel")
LPIPS = "Not measured on the test split: lpips (no weights of the perceptual network)."


def write_light_run(path: Path, spec: str, seed: int = 0) -> RunDirectory:
    """A run that is quick to compare: no trace, no picture."""
    run = write_run(path, spec, seed, K=16, T=2)
    shutil.rmtree(run.trace)
    shutil.rmtree(run.samples)
    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three quantizers whose specs are not in the order of the alphabet, and no plan."""
    for spec in SPECS:
        write_light_run(tmp_path / f"{spec}-seed0", spec)
    return tmp_path


def write_plan(folder: Path, *names: str) -> None:
    AblationDirectory(folder).write_plan(SPECS, [0], [RunDirectory(folder / name) for name in names])


def compared(folder: Path) -> list[str]:
    """The quantizers in the order of the table, which is that of the sections."""
    text = write_report(folder).read_text()
    rows = pd.read_csv(folder / "report" / "tables" / "comparison.csv")["quantizer"].tolist()
    at = [text.index(f"<p>Quantizer {name}, ") for name in rows]
    assert at == sorted(at)
    return rows


def test_a_comparison_follows_the_plan_of_its_ablation(folder):
    write_plan(folder, *(f"{spec}-seed0" for spec in SPECS))
    assert compared(folder) == [*SPECS]
    assert "(standard: n = 1, ema+reset: n = 1, gumbel: n = 1)" in (folder / "report" / "index.html").read_text()


def test_the_figures_follow_the_plan_too(tmp_path, monkeypatch):
    drawn, draw = [], heatmaps.side_by_side
    monkeypatch.setattr(heatmaps, "side_by_side", lambda heats: drawn.append([*heats]) or draw(heats))
    for spec in ("standard", "ema"):
        write_run(tmp_path / spec, spec, K=16, T=2)
    write_plan(tmp_path, "standard", "ema")
    write_report(tmp_path)
    assert drawn == [["standard", "ema"]]


def test_runs_that_the_plan_does_not_name_come_after_it_by_their_names(folder):
    write_light_run(folder / "a-later-one", "entropy")
    write_plan(folder, "standard-seed0", "a-lost-one")
    assert compared(folder) == ["standard", "entropy", "ema+reset", "gumbel"]


def test_without_a_plan_quantizers_stand_in_the_order_of_their_names(folder):
    assert compared(folder) == sorted(SPECS)


def test_the_seeds_of_a_quantizer_follow_the_plan(tmp_path):
    for seed in (0, 1):
        write_light_run(tmp_path / f"ema-seed{seed}", "ema", seed)
    text = write_report(tmp_path).read_text()
    assert text.index("<h2>Run ema-seed0") < text.index("<h2>Run ema-seed1")
    write_plan(tmp_path, "ema-seed1", "ema-seed0")
    text = write_report(tmp_path).read_text()
    assert text.index("<h2>Run ema-seed1") < text.index("<h2>Run ema-seed0")


@pytest.mark.parametrize("damaged", [b"{", b"", b"[]", b"{}", b'{"runs": "ema"}', b'{"runs": [3]}', b"\xff\xfe"])
def test_a_damaged_plan_is_named_in_one_line(folder, damaged):
    AblationDirectory(folder).plan.write_bytes(damaged)
    with pytest.raises(InputError, match=r"^cannot read .*ablation\.json: .*in the order of their names$") as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)


def test_a_plan_is_what_was_asked_for(tmp_path):
    write_plan(tmp_path / "new" / "ablation", "standard-seed0", "gumbel,kl_weight=0-seed0")
    plan = json.loads((tmp_path / "new" / "ablation" / "ablation.json").read_text())
    assert plan == {"quantizers": [*SPECS], "seeds": [0], "runs": ["standard-seed0", "gumbel,kl_weight=0-seed0"]}


def test_a_plan_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*ablation\.json"):
        write_plan(tmp_path / "file")


def test_what_no_run_could_measure_is_said_once(folder):
    text = write_report(folder).read_text()
    assert text.count("no weights of the perceptual network") == 1
    assert LPIPS in text[: text.index("<h2>Training")]
    assert text.count("fewer than 2048 images") == 1
    assert "rFID missing: fewer than 2048 images." in text


def test_what_some_runs_could_not_measure_names_them(folder):
    run = RunDirectory(folder / "gumbel-seed0")
    run.write_json(run.evaluation("test"), run.read_json(run.evaluation("test")) | {"missing": {"lpips": "no disk"}})
    text = write_report(folder).read_text()
    where = "Not measured on the test split of"
    assert f"{where} ema+reset-seed0, standard-seed0: lpips (no weights of the perceptual network)." in text
    assert f"{where} gumbel-seed0: lpips (no disk)." in text


def test_a_run_without_findings_does_not_count_them(folder):
    RunDirectory(folder / "gumbel-seed0").findings.unlink()
    assert write_report(folder).read_text().count("Findings: 1; problems among them: 0.") == 2


def test_runs_of_before_are_compared_with_what_they_have(tmp_path):
    """Older versions left no plan, no pictures, and fewer figures."""
    for seed in (0, 1):
        run = write_run(tmp_path / f"ema-{seed}", "ema", seed, K=16, T=2)
        shutil.rmtree(run.samples)
        for path in (run.environment, run.findings, run.done):
            path.unlink()
        run.write_json(run.evaluation("test"), {"split": "test", "psnr": 20.0 + seed})
        run.metrics.write_text('{"step": 10, "loss/l1": 0.5}\n')
    text = write_report(tmp_path).read_text()
    assert "20.50 ± 0.71" in text
    assert "No reconstructions yet: no run has kept any" in text
    assert np.isnan(pd.read_csv(tmp_path / "report" / "tables" / "comparison.csv")["ssim_mean"]).all()
