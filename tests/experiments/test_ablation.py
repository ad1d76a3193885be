import json
import shlex
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import Answer, call, snapshot

from vqtool.commands.options import RunOptions
from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.run import RunDirectory, load_config
from vqtool.experiments import ablation
from vqtool.vqgan.autoencoder.model import build_model
from vqtool.vqgan.autoencoder.settings import AutoencoderConfig, build_autoencoder_config
from vqtool.vqgan.data import Batches
from vqtool.vqgan.data.opening import open_images

GOOD = ("standard", "gumbel:kl_weight=0.01")
INFINITE = "standard:commitment_weight=1e39"


@pytest.fixture(scope="module")
def first(place, tiny) -> Answer:
    """What an ablation said whose second quantizer has an infinite loss."""
    specs = ",".join([GOOD[0], INFINITE, GOOD[1]])
    return call("ablate", *tiny, "--quantizers", specs, "--out", "ablation")


def planned(tiny: list[str], specs, seeds, folder: Path) -> list[ablation.Trial]:
    """Trials of tiny runs."""
    sets = [word for flag, word in pairwise(tiny) if flag == "--set"]
    data = tiny[tiny.index("--data") + 1]
    shared = RunOptions(set_=sets, data=data, image_size=16, batch_size=4, codebook_size=8)

    def configure(spec: str, seed: int) -> AutoencoderConfig:
        return shared.build(quantizer__spec=spec, train__seed=seed)

    return ablation.plan(specs, seeds, folder, shared.arguments(), configure)


def test_each_quantizer_and_seed_gets_a_folder_of_its_own(tiny, tmp_path):
    trials = planned(tiny, GOOD, [0, 1], tmp_path)
    names = ["standard-seed0", "standard-seed1", "gumbel,kl_weight=0.01-seed0", "gumbel,kl_weight=0.01-seed1"]
    assert [trial.run.path for trial in trials] == [tmp_path / name for name in names]
    assert [trial.config.train.seed for trial in trials] == [0, 1, 0, 1]
    assert not list(tmp_path.iterdir())


def test_runs_with_one_seed_start_from_the_same_encoder_and_decoder(tiny, tmp_path):
    specs = ["standard", "ema+reset", "gumbel", "entropy"]
    models = [build_model(trial.config) for trial in planned(tiny, specs, [3], tmp_path)]
    for model in models[1:]:
        for part in ("encoder", "decoder", "quant_conv", "post_quant_conv"):
            assert_same(getattr(model, part), getattr(models[0], part))
    other = build_model(planned(tiny, ["ema"], [4], tmp_path)[0].config)
    assert not torch.equal(other.encoder.conv_in.weight, models[0].encoder.conv_in.weight)


def assert_same(module: torch.nn.Module, other: torch.nn.Module) -> None:
    weights, expected = module.state_dict(), other.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_runs_with_one_seed_see_the_same_images_in_the_same_order(tiny, tmp_path):
    seen = []
    for trial in planned(tiny, GOOD, [3, 4], tmp_path):
        settings = trial.config.train
        batches = Batches(open_images(trial.config.data)["train"], settings.batch_size, settings.seed)
        seen.append(torch.stack([batches(step)[0] for step in range(5)]))
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_a_setting_of_a_quantizer_is_an_axis(tiny, tmp_path):
    trials = planned(tiny, ["gumbel:kl_weight=0", "gumbel:kl_weight=0.01"], [0], tmp_path)
    assert [trial.config.quantizer.gumbel.kl_weight for trial in trials] == [0, 0.01]
    assert trials[0].config.model_copy(update={"quantizer": trials[1].config.quantizer}) == trials[1].config


def test_a_quantizer_named_twice_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match=r"'standard-seed0'.*twice"):
        planned(tiny, ["standard", "ema", "standard"], [0], tmp_path)


def test_dry_run_prints_a_command_per_run_and_writes_nothing(place, tiny):
    before = snapshot(place)
    words = ["--quantizers", "standard, ema+reset,gumbel:kl_weight=0,gumbel:kl_weight=0.01", "--seeds", "0,1"]
    answer = call("ablate", *tiny, *words, "--out", "planned", "--dry-run")
    assert (answer.code, answer.err) == (0, "")
    commands = [shlex.split(line) for line in answer.out.splitlines()]
    assert [words[:2] for words in commands] == [["vqtool", "train"]] * 8
    assert len({words[words.index("--out") + 1] for words in commands}) == 8
    assert snapshot(place) == before


def test_an_ablation_leaves_its_plan_before_the_first_run(place, tiny, monkeypatch):
    seen = []

    def look(trials, tell):
        seen.append(json.loads((place / "to come/ablation.json").read_text()))
        return ["interrupted"]

    monkeypatch.setattr(ablation, "run", look)
    words = [*tiny, "--quantizers", "standard, gumbel:kl_weight=0.01,ema", "--seeds", "1,0", "--out", "to come"]
    assert call("ablate", *words).code == 130
    names = ["standard-seed", "gumbel,kl_weight=0.01-seed", "ema-seed"]
    assert seen == [
        {
            "quantizers": ["standard", "gumbel:kl_weight=0.01", "ema"],
            "seeds": [1, 0],
            "runs": [f"{name}{seed}" for name in names for seed in (1, 0)],
        }
    ]


def test_an_ablation_in_the_place_of_a_file_is_refused_in_one_line(place, tiny):
    (place / "a file").write_text("")
    answer = call("ablate", *tiny, "--quantizers", "ema", "--out", "a file")
    assert answer.code == 2
    assert answer.err.startswith("vqtool: cannot write a file/ablation.json")
    assert answer.err.count("\n") == 1


def test_a_printed_command_runs_the_planned_run(place, tiny):
    words = [*tiny, "--skip-unreadable", "--debug", "--quantizers", "ema+reset", "--seeds", "5", "--out", "one by one"]
    line = call("ablate", *words, "--dry-run").out.strip()
    assert call(*shlex.split(line)[1:]).code == 0
    run = RunDirectory(place / "one by one/ema+reset-seed5")
    config = build_autoencoder_config(load_config(run.config))
    assert (config.train.steps, config.train.seed, config.quantizer.spec) == (10, 5, "ema+reset")
    assert (config.quantizer.codebook_size, config.data.image_size, config.data.skip_unreadable) == (8, 16, True)
    before = snapshot(run.path)
    answer = call("ablate", *words)
    assert answer.code == 0  # the ablation knows the run for its own
    assert snapshot(run.path) == before


def test_a_broken_run_is_told_and_the_others_go_on(place, first):
    assert first.code == 1
    assert first.err == "1 of 3 runs broken\n"
    broken = INFINITE.replace(":", ",") + "-seed0"
    assert f"{broken} is broken; to see it alone: vqtool train" in first.out
    done = {path.parent.name for path in (place / "ablation").glob("*/DONE")}
    assert done == {"standard-seed0", "gumbel,kl_weight=0.01-seed0"}
    assert (place / "ablation" / broken / "findings.jsonl").exists()


def test_the_finished_runs_are_compared(place, first):
    folder = place / "ablation"
    frame = pd.read_csv(folder / "comparison.csv")
    assert frame["quantizer"].tolist() == list(GOOD)
    assert frame["n"].tolist() == [1, 1]
    for spec, psnr in zip(GOOD, frame["psnr_mean"], strict=True):
        run = RunDirectory(folder / f"{spec.replace(':', ',')}-seed0")
        assert psnr == pytest.approx(run.read_json(run.evaluation("test"))["psnr"])
    table = (folder / "comparison.md").read_text()
    assert table.startswith("|")
    assert table in first.out
    assert r"\begin{tabular}" in (folder / "comparison.tex").read_text()
    assert "report: vqtool report ablation" in first.out


def test_an_ablation_that_is_run_again_skips_what_is_finished(place, tiny, first):
    folder = place / "ablation"
    before = snapshot(folder)
    answer = call("ablate", *tiny, "--quantizers", ",".join(GOOD), "--out", "ablation")
    assert (answer.code, answer.err) == (0, "")
    of_all = ("comparison", "ablation.json")
    runs = [name for name in before if not name.startswith(of_all)]
    assert {name: before[name] for name in runs} == {
        name: found for name, found in snapshot(folder).items() if not name.startswith(of_all)
    }
    assert "report: vqtool report ablation" in answer.out


def test_a_run_with_other_settings_is_refused_before_anything_runs(place, tiny, first):
    before = snapshot(place / "ablation")
    answer = call("ablate", *tiny, "--steps", "4", "--quantizers", "ema,standard", "--out", "ablation")
    assert answer.code == 2
    assert answer.err.startswith("vqtool: ablation/standard-seed0 holds a run with other settings")
    assert answer.err.count("\n") == 1
    assert snapshot(place / "ablation") == before


@pytest.mark.slow
def test_a_file_in_the_place_of_a_run_breaks_that_run_alone(place, tiny):
    (place / "blocked").mkdir()
    (place / "blocked/standard-seed0").write_text("")
    answer = call("ablate", *tiny, "--quantizers", "standard,ema", "--out", "blocked")
    assert (answer.code, answer.err) == (1, "1 of 2 runs broken\n")
    assert (place / "blocked/ema-seed0/DONE").exists()


@pytest.mark.slow
def test_an_interrupted_ablation_goes_on_with_the_same_command(place, tiny):
    words = [*tiny, "--steps", "40", "--quantizers", "standard,ema", "--out", "cut"]
    child = subprocess.Popen([sys.executable, "-m", "vqtool", "ablate", *words], stdout=subprocess.PIPE, text=True)
    run = RunDirectory(place / "cut/standard-seed0")
    while not run.read_metrics() and child.poll() is None:
        time.sleep(0.05)
    child.terminate()
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "the same command goes on" in out
    assert (run.checkpoints / "last.ckpt").exists()
    assert not (place / "cut/ema-seed0").exists()
    assert call("ablate", *words).code == 0
    assert len(list((place / "cut").glob("*/DONE"))) == 2
    assert [row["step"] for row in run.read_metrics() if "loss/total" in row] == list(range(1, 41))
