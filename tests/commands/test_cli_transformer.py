"""The second stage from the command line: trained, sampled, evaluated, and refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import assert_refused, call, options, snapshot, surroundings

import vqtool
from vqtool.diagnostics.run import RunDirectory

CODES = [
    *("--set", "transformer.layers=1", "--set", "transformer.heads=2", "--set", "transformer.width=16"),
    *(
        "--set",
        "sampling.count=4",
        "--set",
        "train.log_every=1",
        "--batch-size",
        "4",
        "--steps",
        "3",
        "--device",
        "cpu",
    ),
]
CLASS = ("--condition", "class", "--set", "condition.drop=0.2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a finished first stage, and images of two classes beside it."""
    with surroundings(tmp_path_factory.mktemp("place")) as work:
        random = np.random.default_rng(0)
        for split, count in (("train", 8), ("validation", 4), ("test", 4)):
            for number in range(count):
                folder = work.parent / "images" / split / ("cat", "dog")[number % 2]
                folder.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
        first = options(work.parent / "images")
        assert call("train", *first, "--quantizer", "ema+reset:every=1", "--out", "first").code == 0
        assert call("train", *first, "--set", "data.view=edges", "--out", "edges").code == 0
        yield work


@pytest.fixture(scope="module")
def run(place) -> RunDirectory:
    """A transformer by class."""
    answer = call("train", "--stage", "transformer", "--from", "first", *CODES, *CLASS, "--out", "run")
    assert (answer.code, answer.err) == (0, "")
    return RunDirectory(place / "run")


@pytest.fixture(scope="module")
def others(place, run) -> Path:
    """Transformers of other kinds, and what bad input points at."""
    words = ("train", "--stage", "transformer", "--from", "first", *CODES)
    for name, own in {
        "plain": (),
        "spiral": ("--set", "transformer.order=spiral-in"),
        "coordinates": ("--condition", "coordinates"),
        "spatial": ("--condition", "spatial", "--condition-from", "edges"),
    }.items():
        answer = call(*words, *own, "--out", name)
        assert (answer.code, answer.err) == (0, ""), name
    (place / "begun").mkdir()
    (place / "begun/config.yaml").write_text((place / "first/config.yaml").read_text())
    smaller = options(place.parent / "images")
    assert call("train", *smaller, "--set", "data.view=edges", "--image-size", "32", "--out", "edges-32").code == 0
    return place


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


BEGIN = "train --stage transformer --out new"
BAD_INPUT = [
    ("no first stage", BEGIN, ["--from"]),
    ("first stage that is none", f"{BEGIN} --from nowhere", ["nowhere is not a run"]),
    ("first stage that is not finished", f"{BEGIN} --from begun", ["begun is not finished", "--resume"]),
    ("first stage that is a second", f"{BEGIN} --from run", ["first stage run", "'transformer'", "vqgan"]),
    ("another codebook size", f"{BEGIN} --from first --codebook-size 16", ["first has 8 codes", "16"]),
    ("another image size", f"{BEGIN} --from first --image-size 32", ["16 pixels", "data.image_size is 32"]),
    ("another codebook size later", "train --resume --out run --codebook-size 4", ["first has 8 codes", "is 4"]),
    ("unknown stage", "train --stage transfromer", ["stage 'transfromer'", "did you mean 'transformer'"]),
    ("unknown condition", f"{BEGIN} --from first --condition clas", ["condition.kind", "'class'", "'clas'"]),
    ("spatial without a stage", f"{BEGIN} --from first --condition spatial", ["condition.stage"]),
    ("stage without spatial", f"{BEGIN} --from first --condition-from edges", ["condition.stage", "spatial"]),
    (
        "condition of another size",
        f"{BEGIN} --from first --condition spatial --condition-from edges-32",
        ["edges-32 is for images of 32 pixels", "16"],
    ),
    ("unknown order", f"{BEGIN} --from first --set transformer.order=zcurve", ["'zcurve'", "did you mean 'z-curve'"]),
    ("unknown size", f"{BEGIN} --from first --set transformer.size=tny", ["'tny'", "did you mean 'tiny'"]),
    ("unknown key", f"{BEGIN} --from first --set transformer.pkep=0.5", ["'transformer.pkep'", "'transformer.pkeep'"]),
    ("key of the other stage", f"{BEGIN} --from first --set model.ch=32", ["'model'"]),
    ("quantizer for a transformer", f"{BEGIN} --from first --quantizer ema", ["--quantizer", "--from"]),
    ("condition for a first stage", "train --condition class", ["--condition", "--stage transformer"]),
    ("recipe of the other stage", f"{BEGIN} --from first --recipe photos", ["'photos'", "codes"]),
    ("both stages from one", "train --stage all --from first", ["--from"]),
    ("guidance in the evaluation", f"{BEGIN} --from first --set sampling.guidance=2", ["condition.drop"]),
    ("sample of nothing", "sample nowhere", ["nowhere is not a run"]),
    ("sample of a first stage", "sample first", ["first is a run of the first stage", "--from"]),
    ("class out of range", "sample run --classes 2", ["class 2 is out of range", "0 (cat) to 1"]),
    ("negative class", "sample run --classes cat,-1", ["class -1 is out of range"]),
    ("unknown class", "sample run --classes dgo", ["class 'dgo'", "did you mean 'dog'"]),
    ("class of what knows none", "sample plain --classes cat", ["--classes", "'none'"]),
    ("top-p of 0", "sample run --top-p 0", ["top_p 0.0", "above 0"]),
    ("top-p above 1", "sample run --top-p 1.5", ["top_p 1.5", "at most 1"]),
    ("top-k of 0", "sample run --top-k 0", ["top_k 0"]),
    ("no temperature", "sample run --temperature 0", ["temperature 0.0", "greedy"]),
    ("no images", "sample run --count 0", ["--count", "greater"]),
    ("guidance never learned", "sample plain --guidance 2", ["--guidance 2.0", "condition.drop"]),
    ("size that is none", "sample run --size 64", ["--size '64'", "64x96"]),
    ("size between codes", "sample run --size 33x32", ["--size 33x32", "2 pixels", "32x32"]),
    ("size below the window", "sample run --size 8x32", ["--size 8x32", "16x16"]),
    ("window larger than the block", "sample run --size 64x64 --window 9x8", ["--window 9x8", "larger", "8x8"]),
    ("window without a size", "sample run --window 4x4", ["--window", "--size"]),
    ("window in another order", "sample spiral --size 32x32", ["raster", "'spiral-in'"]),
    ("larger completions", "sample run --what completions --size 32x32", ["--size", "completions"]),
    ("unknown kind", "sample run --what sample", ["'sample'", "did you mean 'samples'"]),
    ("unknown split", "sample run --what completions --split tset", ["'tset'", "did you mean 'test'"]),
    ("unknown checkpoint to sample", "sample run --checkpoint lst", ["checkpoint 'lst'", "did you mean 'last'"]),
    ("a long spatial image", "sample spatial --size 32x64", ["32x64", "square"]),
]


@pytest.mark.parametrize(("words", "told"), [case[1:] for case in BAD_INPUT], ids=[case[0] for case in BAD_INPUT])
def test_bad_input_is_told_in_one_line_and_nothing_is_written(others, words, told):
    before = snapshot(others)
    answer = call(*words.split())
    assert_refused(answer.code, answer.err, *told)
    assert snapshot(others) == before


def test_a_run_says_where_it_is_and_keeps_what_it_stands_on(run):
    assert {path.name for path in run.checkpoints.iterdir()} == {"last.ckpt", "best.ckpt", "first-stage.ckpt"}
    assert run.done.exists()
    assert "stage: transformer" in run.config.read_text()


def test_its_config_file_alone_repeats_a_run(run, place):
    assert call("train", "--config", run.config, "--out", "again").code == 0
    again = RunDirectory(place / "again")
    assert again.read_json(again.evaluation("test")) == run.read_json(run.evaluation("test"))
    assert again.config.read_text() == run.config.read_text()


def test_a_run_is_resumed_without_naming_its_stage(run, place):
    assert call("train", "--config", run.config, "--out", "longer").code == 0
    assert call("train", "--resume", "--out", "longer", "--steps", "4").code == 0
    longer = RunDirectory(place / "longer")
    assert longer.read_json(longer.done)["steps"] == 4
    assert "nothing to resume" in call("train", "--resume", "--out", "longer").out


def test_both_stages_are_trained_by_one_command(place):
    first = options(place.parent / "images")
    words = ("train", "--stage", "all", *first, *CODES, *CLASS, "--out", "both")
    answer = call(*words)
    assert (answer.code, answer.err) == (0, "")
    assert (place / "both/first-stage/DONE").exists()
    assert (place / "both/transformer/DONE").exists()
    assert "transformer" not in (place / "both/first-stage/config.yaml").read_text()
    again = call(*words, "--resume")
    assert (again.code, again.err) == (0, "")
    assert again.out.count("nothing to resume") == 2


def test_the_commands_of_the_readme_follow_from_each_other(place):
    text = (Path(str(vqtool.__file__)).parent / "README.md").read_text(encoding="utf-8")
    block = next(part for part in text.split("```") if "vqtool train --stage all" in part)
    lines = [line.partition("#")[0] for line in block.splitlines() if "runs/both" in line]
    words = [part.split()[1:] for line in lines for part in line.split("&&")]
    assert [word[0] for word in words] == ["train", "sample", "sample", "sample", "evaluate", "report"]
    # The README's own settings come last and count.
    words[0] = ["train", *options(place.parent / "images"), *CODES, *words[0][1:]]
    for command in words:
        answer = call(*command)
        assert answer.code == 0, answer.err


def test_what_is_wrong_with_the_second_stage_shows_before_the_first_is_trained(place):
    words = ("--stage", "all", *options(place.parent / "images"), "--set", "transformer.order=zcurve")
    answer = call("train", *words, "--out", "never")
    assert_refused(answer.code, answer.err, "'z-curve'")
    assert not (place / "never").exists()


def test_evaluate_measures_another_split_and_keeps_its_tables(run):
    answer = call("evaluate", run.path, "--split", "validation")
    assert (answer.code, answer.err) == (0, "")
    assert "bits_per_dim" in answer.out
    assert "fid: fid needs the file" in answer.out
    assert run.codes("validation").exists()
    assert run.positions("validation").exists()


def test_a_seed_is_the_same_images_on_every_run_and_another_seed_others(run):
    made = []
    for number, seed in enumerate((3, 3, 4)):
        answer = call("sample", run.path, "--count", "6", "--seed", str(seed), "--out", f"seeds-{number}")
        assert (answer.code, answer.err) == (0, "")
        made.append(pixels(next(Path(f"seeds-{number}").iterdir())))
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_an_image_does_not_depend_on_how_many_are_asked_for_after_it(others):
    for count in (3, 7):
        answer = call("sample", "plain", "--count", str(count), "--batch", "4", "--separate", "--out", f"count-{count}")
        assert (answer.code, answer.err) == (0, "")
    few, many = (sorted(Path(f"count-{count}").glob("*/*.png")) for count in (3, 7))
    assert (len(few), len(many)) == (3, 7)
    assert [pixels(path).tolist() for path in few] == [pixels(path).tolist() for path in many[:3]]


def test_more_images_than_a_panel_shows_are_streamed_to_files(run):
    answer = call("sample", run.path, "--count", "70", "--out", "many")
    assert (answer.code, answer.err) == (0, "")
    folder = next(path for path in Path("many").iterdir() if path.is_dir())
    assert sorted(path.name for path in folder.glob("*.png")) == [f"{number:06d}.png" for number in range(70)]
    assert pixels(folder / "000069.png").shape == (16, 16, 3)
    rows = list(csv.DictReader((folder / "samples.csv").open()))
    assert [row["condition"] for row in rows] == ["cat"] * 35 + ["dog"] * 35
    assert "sample 3/3" in answer.out
    again = call("sample", run.path, "--count", "70", "--out", "many")
    assert_refused(again.code, again.err, str(folder))


def test_a_window_over_an_image_of_the_training_size_gives_the_plain_sample(others):
    for name in ("run", "plain"):
        for number, size in enumerate(((), ("--size", "16x16"))):
            words = ("sample", name, "--count", "2", "--separate", *size, "--out", f"window-{name}-{number}")
            assert call(*words).code == 0
        plain, windowed = (sorted(Path(f"window-{name}-{number}").glob("*/*.png")) for number in (0, 1))
        assert [pixels(path).tolist() for path in plain] == [pixels(path).tolist() for path in windowed]


@pytest.mark.parametrize("name", ["run", "plain", "coordinates"])
def test_images_larger_than_those_of_the_training_are_drawn(others, name):
    answer = call("sample", name, "--count", "2", "--size", "24x40", "--separate", "--out", f"large-{name}")
    assert (answer.code, answer.err) == (0, "")
    assert [pixels(path).shape for path in Path(f"large-{name}").glob("*/*.png")] == [(24, 40, 3)] * 2


def test_a_larger_image_under_a_spatial_condition_is_drawn(others):
    answer = call("sample", "spatial", "--count", "2", "--size", "32x32", "--separate", "--out", "large-spatial")
    assert (answer.code, answer.err) == (0, "")
    assert [pixels(path).shape for path in Path("large-spatial").glob("*/*.png")] == [(32, 32, 3)] * 2


@pytest.mark.parametrize("name", ["run", "plain", "spiral", "coordinates", "spatial"])
def test_every_kind_samples_and_completes(others, name):
    for what in ("samples", "completions"):
        answer = call("sample", name, "--what", what, "--top-k", "4", "--top-p", "0.9", "--count", "4")
        assert (answer.code, answer.err) == (0, "")
        assert Path(answer.out.split("images: ")[1].strip()).exists()


def test_guidance_and_greed_change_what_is_sampled(run):
    made = {}
    for name, words in {"plain": (), "guided": ("--guidance", "8"), "greedy": ("--greedy",)}.items():
        assert call("sample", run.path, "--count", "4", *words, "--out", f"how-{name}").code == 0
        made[name] = pixels(next(Path(f"how-{name}").iterdir()))
    assert not np.array_equal(made["plain"], made["guided"])
    assert not np.array_equal(made["plain"], made["greedy"])


def test_the_report_of_both_stages_is_written(run, place):
    answer = call("report", run.path)
    assert answer.code == 0, answer.err
    page = (run.path / "report/index.html").read_text()
    assert "nats" in page
