import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from tiny import Answer, assert_refused, call, image_folder, options, snapshot

from vqtool.commands.options import RunOptions
from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.run import RunDirectory
from vqtool.experiments.recipes import RECIPES, recipe

COMMANDS = ("train", "ablate", "report", "evaluate", "measure", "lint", "explain", "sample", "recipes")
HEAVY = ("torch", "pandas", "matplotlib", "lightning_fabric", "torchvision", "numpy")


@pytest.fixture(scope="module")
def first(place, tiny) -> Answer:
    """What training into `run` said."""
    return call("train", *tiny, "--quantizer", "ema+reset:every=2", "--out", "run")


@pytest.fixture(scope="module")
def run(place, first) -> RunDirectory:
    assert first.code == 0, first.err
    return RunDirectory(place / "run")


@pytest.fixture(scope="module")
def oddities(place, run) -> Path:
    """The working folder with what bad input points at."""
    (place / "empty").mkdir()
    (place / "a-file").write_text("")
    (place / "not-a-tree.yaml").write_text("- 1\n")
    (place / "not-yaml.yaml").write_text("train: {steps: [\n")
    (place / "unknown-key.yaml").write_text("train: {step: 3}\n")
    (place / "unknown-branch.yaml").write_text("trian: {steps: 3}\n")
    (place / "begun").mkdir()
    (place / "begun/config.yaml").write_text(run.config.read_text())
    (place / "garbled").mkdir()
    (place / "garbled/config.yaml").write_text(run.config.read_text())
    (place / "garbled/checkpoints").mkdir()
    (place / "garbled/checkpoints/last.ckpt").write_bytes(b"not a checkpoint")
    image_folder(place / "no-test")
    for path in (place / "no-test/test").iterdir():
        path.unlink()
    image_folder(place / "broken")
    (place / "broken/train/3.png").write_bytes(b"\x89PNG\r\n")
    return place


def process(*words: str, **settings) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vqtool", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


# Each: what is wrong; the command, "..." standing for the options of a tiny run; what the line has to say.
BAD_INPUT = [
    ("unknown quantizer", "train ... --quantizer standrd", ["'standrd'", "did you mean 'standard'", "gumbel"]),
    ("unknown remedy", "train ... --quantizer ema+reste", ["remedy 'reste'", "did you mean 'reset'"]),
    ("remedy twice", "train ... --quantizer ema+reset+reset", ["'reset' stands twice"]),
    ("unknown setting of a spec", "train ... --quantizer ema:decai=0.9", ["quantizer.ema.decai"]),
    ("setting of a spec without =", "train ... --quantizer ema:decay", ["'decay'", "key=value"]),
    ("unknown key", "train ... --set train.step=3", ["'train.step'", "'train.steps'"]),
    ("known key in the wrong branch", "train ... --set data.steps=3", ["'data.steps'", "'train.steps'"]),
    ("unknown branch", "train ... --set trian.steps=3", ["'trian", "train"]),
    ("no =", "train ... --set train.steps", ["--set 'train.steps'", "key=value"]),
    ("no key", "train ... --set =3", ["--set '=3'", "key=value"]),
    ("value that is not YAML", "train ... --set train.steps=[", ["train.steps", "'['"]),
    ("wrong type", "train ... --set train.seed=many", ["train.seed", "integer", "'many'"]),
    ("wrong type of an option", "train ... --steps many", ["--steps", "integer"]),
    ("value for a branch", "train ... --set loss=3", ["loss", "not 3"]),
    ("out of range", "train ... --set quantizer.reset.threshold=2", ["quantizer.reset.threshold", "less than 1", "2"]),
    ("negative seed", "train ... --seed -1", ["train.seed", "greater than or equal to 0"]),
    ("no steps", "train ... --steps 0", ["train.steps", "greater than 0"]),
    ("unknown choice", "train ... --precision 8", ["train.precision", "'bf16'", "'8'"]),
    ("a codebook of one code", "train ... --codebook-size 1", ["quantizer.codebook_size", "2", "1"]),
    ("k-means for gumbel", "train ... --quantizer gumbel --set quantizer.init=kmeans", ["kmeans", "gumbel"]),
    ("image size not a multiple", "train ... --image-size 17", ["data.image_size 17", "multiple of 2"]),
    ("batch not a multiple", "train ... --set train.accumulate=3", ["train.batch_size 4", "multiple", "3"]),
    ("half precision on the CPU", "train ... --precision 16", ["train.precision 16", "bf16"]),
    ("unknown device", "train ... --device gpu", ["train.device", "'cuda'", "'gpu'"]),
    ("unknown key in a file", "train --config unknown-key.yaml", ["'train.step'", "'train.steps'"]),
    ("unknown branch in a file", "train --config unknown-branch.yaml", ["'trian'", "did you mean 'train'"]),
    ("missing file", "train --config nowhere.yaml", ["nowhere.yaml", "No such file"]),
    ("folder for a file", "train --config empty", ["empty", "directory"]),
    ("file that is not YAML", "train --config not-yaml.yaml", ["not-yaml.yaml", "not YAML"]),
    ("file without a tree", "train --config not-a-tree.yaml", ["not-a-tree.yaml", "keys and values"]),
    ("unknown recipe", "train --recipe photo", ["recipe 'photo'", "did you mean 'photos'"]),
    ("recipe and file", "train --recipe photos --config begun/config.yaml", ["--recipe or --config"]),
    ("unknown data set", "train ... --data fotos", ["'fotos'", "did you mean 'photos'", "cifar10"]),
    ("path for a data set", "train ... --data broken", ["folder:broken"]),
    ("missing data folder", "train ... --data folder:nowhere", ["'nowhere'", "does not exist"]),
    ("empty split", "train ... --data folder:no-test", ["test", "no image"]),
    ("broken image", "train ... --data folder:broken", ["broken/train/3.png", "--skip-unreadable"]),
    ("run folder that exists", "train ... --out run", ["run", "exists", "--out", "--resume"]),
    ("file for a run folder", "train ... --out a-file", ["a-file", "exists", "--out"]),
    ("run folder in a file", "train ... --out a-file/run", ["a-file"]),
    ("nothing to resume", "train ... --resume --out nowhere", ["there is no folder nowhere"]),
    ("resume of a file", "train ... --resume --out a-file", ["a-file"]),
    ("resume of what is no run", "train ... --resume --out no-test", ["no-test", "config.yaml"]),
    (
        "checkpoint of another shape",
        "train --resume --out run --codebook-size 16",
        ["last.ckpt is of another shape", "(16,"],
    ),
    ("checkpoint that is none", "train --resume --out garbled", ["garbled/checkpoints/last.ckpt"]),
    (
        "no perceptual weights",
        "train ... --set loss.perceptual=vgg",
        ["vgg16", "perceptual_weights", "perceptual=none"],
    ),
    ("report of no runs", "report empty", ["no runs in empty", "config.yaml"]),
    ("report of nothing", "report nowhere", ["nowhere"]),
    ("evaluation of no run", "evaluate empty", ["empty is not a run", "config.yaml"]),
    ("evaluation of nothing", "evaluate nowhere", ["nowhere"]),
    ("evaluation before a checkpoint", "evaluate begun", ["last.ckpt"]),
    ("evaluation of no checkpoint", "evaluate garbled", ["garbled/checkpoints/last.ckpt"]),
    ("unknown split", "evaluate run --split tset", ["split 'tset'", "did you mean 'test'"]),
    ("unknown checkpoint", "evaluate run --checkpoint latest", ["checkpoint 'latest'", "best, last"]),
    ("unknown device to evaluate on", "evaluate run --device gpu", ["device 'gpu'", "cpu"]),
    ("seeds that are none", "ablate ... --quantizers ema --seeds a,b", ["'a,b'", "0,1,2"]),
    ("seeds that only look so", "ablate ... --quantizers ema --seeds 0,²", ["'0,²'", "0,1,2"]),
    ("seed twice", "ablate ... --quantizers ema --seeds 0,0", ["'ema-seed0'", "twice"]),
    ("quantizer twice", "ablate ... --quantizers ema,gumbel,ema", ["'ema-seed0'", "twice"]),
    ("unknown quantizer among others", "ablate ... --quantizers ema,gumble", ["did you mean 'gumbel'"]),
    ("no quantizers", "ablate ...", ["--quantizers"]),
    ("unknown command", "trian", ["'trian'", "'train'"]),
    ("unknown option", "train --stesp 3", ["--stesp"]),
    ("one argument too many", "evaluate run other", ["other"]),
]


@pytest.mark.parametrize(("words", "told"), [case[1:] for case in BAD_INPUT], ids=[case[0] for case in BAD_INPUT])
def test_bad_input_is_told_in_one_line_and_nothing_is_written(oddities, tiny, words, told):
    before = snapshot(oddities)
    answer = call(*[word for part in words.split() for word in (tiny if part == "..." else [part])])
    assert_refused(answer.code, answer.err, *told)
    assert snapshot(oddities) == before


@pytest.mark.parametrize("command", ["train --resume", "report"])
def test_without_any_run_the_newest_one_is_missed_in_one_line(place, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    answer = call(*command.split())
    assert_refused(answer.code, answer.err, "runs/", "vqtool train")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("command", ["train --resume --out begun", "evaluate run"])
def test_a_device_that_is_not_there_is_bad_input(oddities, command):
    before = snapshot(oddities)
    answer = call(*command.split(), "--device", "cuda")
    assert_refused(answer.code, answer.err, "cuda", "cpu")
    assert snapshot(oddities) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "--stesp", "3"], "--stesp"),
        (["train", "...", "--set", "loss.perceptual=vgg"], "loss.perceptual=none"),
        (["trian"], "'train'"),
    ],
)
def test_a_process_of_its_own_answers_bad_input_the_same_way(oddities, tiny, words, told):
    before = snapshot(oddities)
    done = process(*[word for part in words for word in (tiny if part == "..." else [part])])
    assert_refused(done.returncode, done.stderr, told)
    assert snapshot(oddities) == before


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_comes_at_once_and_loads_nothing_heavy(command):
    words = [*command.split(), "--help"]
    script = "import sys\nfrom vqtool.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    shown = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert not set(shown.stderr.split()) & set(HEAVY)
    assert f"Example: vqtool {command}" in shown.stdout or not command
    assert min(_seconds(words) for _ in range(3)) < 0.5


def _seconds(words: list[str]) -> float:
    """Processor time, which is the time that it takes where nothing else runs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process(*words).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_command_alone_shows_its_help():
    assert call() == call("--help")
    assert all(command in call().out for command in COMMANDS)


def test_train_says_where_the_run_is_and_how_to_look_at_it(first):
    assert (first.code, first.err) == (0, "")
    assert "report: vqtool report run" in first.out
    assert "train 3/3" in first.out


def test_a_run_folder_holds_what_the_house_says(run):
    assert {path.name for path in run.path.iterdir()} == {
        *("config.yaml", "environment.json", "metrics.jsonl", "evaluation-test.json", "DONE"),
        *("trace", "checkpoints", "tensorboard", "samples"),
        *("boundary", "movement", "latents", "geometry", "terms", "snapshots"),
    }
    assert {path.name for path in run.checkpoints.iterdir()} == {"last.ckpt", "best.ckpt"}
    assert [path.name for path in run.samples.iterdir()] == ["reconstructions-0000003.png"]
    assert list(run.tensorboard.glob("events.out.tfevents.*"))
    trace = pq.read_table(run.trace / "quantize")
    assert trace["step"].to_pylist() == [step for step in (1, 2, 3) for _ in range(8)]
    assert sum(trace["hits"].to_pylist()) == 3 * 4 * 8 * 8  # steps x images x tokens per image


def test_the_files_of_a_run_tell_what_ran(run):
    environment = run.read_json(run.environment)
    assert environment["command"].startswith("vqtool train --set model.ch=32")
    assert environment["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["device"].startswith("cpu")
    assert environment["world_size"] == 1
    assert "git" in environment
    assert [row["step"] for row in run.read_metrics() if "loss/total" in row] == [1, 2, 3]
    assert [row["step"] for row in run.read_metrics() if "validation/nll" in row] == [3]
    done = run.read_json(run.done)
    assert (done["steps"], done["epochs"]) == (3, 1.5)
    assert done["device_hours_per_epoch"] == pytest.approx(done["seconds"] / 3600 / 1.5)


def test_its_config_file_alone_repeats_a_run_to_the_last_bit(run, place):
    assert call("train", "--config", run.config, "--out", "again").code == 0
    again = RunDirectory(place / "again")
    weights, same = (
        torch.load(r.checkpoints / "last.ckpt", weights_only=True)["learner"]["model"] for r in (run, again)
    )
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert _without_speed(again) == _without_speed(run)
    assert pq.read_table(again.trace / "quantize").equals(pq.read_table(run.trace / "quantize"))
    assert again.config.read_text() == run.config.read_text()


def _without_speed(run: RunDirectory) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if "speed" not in name} for row in run.read_metrics()]


def test_settings_come_from_the_recipe_then_set_then_options():
    assert RunOptions().build().train.steps == 400
    assert RunOptions(recipe="cifar10").build().train.steps == recipe("cifar10").settings["train"]["steps"] != 400
    assert RunOptions(recipe="cifar10", set_=["train.steps=5"]).build().train.steps == 5
    assert RunOptions(recipe="cifar10", set_=["train.steps=5"], steps=6).build().train.steps == 6
    assert RunOptions(set_=["quantizer.spec=ema"]).build(quantizer__spec="gumbel").quantizer.spec == "gumbel"
    assert RunOptions(recipe="cifar10", steps=6).build().quantizer.codebook_size == 1024


def test_a_file_takes_the_place_of_the_recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"train": {"steps": 7, "every": 3}}))
    config = RunOptions(config=path, set_=["train.every=2"], steps=6).build()
    assert (config.train.steps, config.train.every) == (6, 2)
    assert RunOptions(config=path).build().model.ch == 128  # not the 32 of the recipe `photos`
    with pytest.raises(InputError, match="not both"):
        RunOptions(config=path, recipe="photos").build()


def test_debug_runs_ten_batches_and_logs_each(place, tiny):
    assert call("train", *tiny, "--steps", "99", "--debug", "--out", "debugged").code == 0
    run = RunDirectory(place / "debugged")
    assert [row["step"] for row in run.read_metrics() if "loss/total" in row] == list(range(1, 11))
    assert run.read_json(run.done)["steps"] == 10


def test_unreadable_images_are_left_out_when_asked(oddities, tiny):
    words = ["train", *tiny, "--data", "folder:broken", "--skip-unreadable", "--out", "without-the-broken"]
    assert call(*words).code == 0
    assert (oddities / "without-the-broken/DONE").exists()


def test_to_resume_a_finished_run_changes_nothing(run):
    before = snapshot(run.path)
    answer = call("train", "--resume", "--out", run.path)
    assert (answer.code, answer.err) == (0, "")
    assert "finished; nothing to resume" in answer.out
    assert snapshot(run.path) == before


def test_a_finished_run_goes_on_where_more_steps_are_asked_for(run, place):
    assert call("train", "--config", run.config, "--out", "longer").code == 0
    assert call("train", "--resume", "--out", "longer", "--steps", "5").code == 0
    longer = RunDirectory(place / "longer")
    assert [row["step"] for row in longer.read_metrics() if "loss/total" in row] == [1, 2, 3, 4, 5]
    assert longer.read_json(longer.done)["steps"] == 5
    assert longer.read_json(longer.evaluation("test"))["step"] == 5


def test_a_run_that_goes_on_is_not_done_before_its_new_end(run, place):
    assert call("train", "--config", run.config, "--out", "broken-off").code == 0
    assert call("train", "--resume", "--out", "broken-off", "--steps", "5", "--set", "optimizer.lr=1e38").code == 1
    assert not (place / "broken-off/DONE").exists()


def test_a_run_without_a_checkpoint_begins_anew(run, place):
    assert call("train", "--config", run.config, "--out", "anew").code == 0
    anew = RunDirectory(place / "anew")
    for path in (anew.checkpoints / "last.ckpt", anew.done):
        path.unlink()
    assert call("train", "--resume", "--out", "anew").code == 0
    assert _without_speed(anew) == _without_speed(run)
    assert pq.read_table(anew.trace / "quantize").equals(pq.read_table(run.trace / "quantize"))


def test_a_resumed_run_keeps_its_settings_where_none_are_given(run, tmp_path):
    kept = RunOptions().build(run.config)
    assert kept.model.ch_mult == (1, 1)
    assert RunOptions(steps=9).build(run.config).train.steps == 9
    assert RunOptions(recipe="cifar10").build(run.config).train.steps == recipe("cifar10").settings["train"]["steps"]
    (tmp_path / "mine.yaml").write_text("train: {steps: 7}")
    assert RunOptions(config=tmp_path / "mine.yaml").build(run.config).train.steps == 7


def test_evaluate_repeats_the_numbers_of_the_end_of_training(run):
    path = run.evaluation("test")
    before = run.read_json(path)
    answer = call("evaluate", run.path)
    assert (answer.code, answer.err) == (0, "")
    assert run.read_json(path) == before
    assert (before["step"], before["images"], before["tokens"]) == (3, 4, 4 * 8 * 8)
    table = dict(line.split() for line in answer.out.splitlines() if len(line.split()) == 2)
    assert float(table["psnr"]) == pytest.approx(before["psnr"], rel=1e-5)
    assert table["codes_used_split"] == str(before["codes_used_split"])
    assert f"usage: {before['usage']}" in answer.out
    assert "rfid: rfid needs the file" in answer.out


def test_evaluate_measures_any_split_and_checkpoint(run):
    assert call("evaluate", run.path, "--split", "train", "--checkpoint", "best").code == 0
    figures = run.read_json(run.evaluation("train"))
    run.evaluation("train").unlink()
    assert (figures["split"], figures["checkpoint"], figures["images"]) == ("train", "best", 8)
    assert figures["psnr"] != run.read_json(run.evaluation("test"))["psnr"]


def test_a_loss_that_is_not_finite_ends_the_run_with_code_1(place, tiny):
    answer = call("train", *tiny, "--quantizer", "standard:commitment_weight=1e39", "--out", "infinite")
    assert answer.code == 1
    assert answer.err.startswith("vqtool: loss/")
    assert answer.err.count("\n") == 1
    assert (place / "infinite/checkpoints/failed.ckpt").exists()
    finding = json.loads((place / "infinite/findings.jsonl").read_text())
    assert (finding["check"], finding["severity"]) == ("finite losses", "problem")
    assert not (place / "infinite/DONE").exists()


def test_an_interrupted_run_leaves_a_checkpoint_and_resumes_to_the_end(place):
    words = ["train", *options(place.parent / "images", steps=100_000), "--out", "interrupted"]
    run = RunDirectory(place / "interrupted")
    child = subprocess.Popen(
        [sys.executable, "-m", "vqtool", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        _wait_for(lambda: run.read_metrics() or child.poll() is not None)
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert (child.returncode, err) == (130, "")
    assert "go on with: vqtool train --resume --out interrupted" in out
    stopped = torch.load(run.checkpoints / "last.ckpt", weights_only=True)["step"]
    assert [row["step"] for row in run.read_metrics() if "loss/total" in row] == list(range(1, stopped + 1))

    assert call("train", "--resume", "--out", "interrupted", "--steps", stopped + 2).code == 0
    assert run.read_json(run.done)["steps"] == stopped + 2
    assert [row["step"] for row in run.read_metrics() if "loss/total" in row] == list(range(1, stopped + 3))
    assert sorted(set(pq.read_table(run.trace / "quantize")["step"].to_pylist())) == list(range(1, stopped + 3))


def _wait_for(condition, seconds: float = 90) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)


def test_recipes_are_listed_with_their_price(place):
    answer = call("recipes")
    assert answer.code == 0
    for name, found in RECIPES.items():
        assert f"\n{name} ({found.stage})\n" in f"\n{answer.out}"
    prices = [line.partition("Price:")[2].strip() for line in answer.out.splitlines() if "Price:" in line]
    assert len(prices) == len(RECIPES)
    assert all(prices)
