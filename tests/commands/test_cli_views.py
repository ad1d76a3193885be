"""First stages of every view from the command line, and a transformer under a segmentation map."""

import numpy as np
import pytest
from PIL import Image
from tiny import assert_refused, call, image_folder, options, surroundings

from vqtool.diagnostics.run import RunDirectory
from vqtool.vqgan.data.views import VIEWS

SPECS = {"image": "image", "edges": "edges", "lowres": "lowres:2", "segmentation": "segmentation:3", "depth": "depth"}


def pairs(root, kind):
    """12 images of 16 x 16 with maps of three bands."""
    random = np.random.default_rng(0)
    for folder in ("images", f"{kind}s"):
        (root / folder).mkdir(parents=True)
    for number in range(12):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / f"images/{number}.png")
        bands = np.repeat(random.permutation(3), 6)[:16, None].repeat(16, 1).astype(np.uint8)
        Image.fromarray(bands).save(root / f"{kind}s/{number}.png")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with surroundings(tmp_path_factory.mktemp("place")) as work:
        image_folder(work.parent / "folder")
        for kind in ("segmentation", "depth"):
            pairs(work.parent / kind, kind)
        yield work


def words(place, view):
    name = view.partition(":")[0]
    paired = name in ("segmentation", "depth")
    data = f"pairs:{place.parent / name}" if paired else f"folder:{place.parent / 'folder'}"
    return ["train", *options(place.parent / "folder"), "--data", data, "--set", f"data.view={view}"]


@pytest.mark.parametrize("name", VIEWS)
def test_a_first_stage_of_every_view_is_trained_and_evaluated(place, name):
    answer = call(*words(place, SPECS[name]), "--out", name)
    assert (answer.code, answer.err) == (0, "")
    run = RunDirectory(place / name)
    figures = run.read_json(run.evaluation("test"))
    assert figures["tokens"] == figures["images"] * 64
    measures = {"pixel_accuracy", "mean_iou", "bce"} if name == "segmentation" else {"l1", "psnr", "ssim"}
    assert all(figures[measure] is not None for measure in measures)
    grid = np.asarray(Image.open(next(run.samples.iterdir())))
    assert grid.shape[2] == 3
    assert grid.std() > 0


def test_a_view_of_maps_is_refused_where_there_are_none(place):
    answer = call(*words(place, "edges")[:-1], "data.view=segmentation:3", "--out", "none")
    assert_refused(answer.code, answer.err, "segmentation:3", "pairs:PATH")
    assert not (place / "none").exists()


def test_a_transformer_paints_images_over_a_segmentation_map(place):
    for out, view in (("maps", "segmentation:3"), ("photographs", "image")):
        line = [*words(place, "segmentation:3")[:-1], f"data.view={view}", "--out", out]
        assert call(*line).code == 0
    line = ["--from", "photographs", "--condition", "spatial", "--condition-from", "maps", "--steps", "2"]
    sizes = ["--set", "transformer.size=tiny", "--set", "transformer.layers=1", "--batch-size", "4"]
    answer = call("train", "--stage", "transformer", *line, *sizes, "--set", "sampling.count=2", "--out", "painter")
    assert (answer.code, answer.err) == (0, "")
    assert (place / "painter/checkpoints/condition-stage.ckpt").exists()
    answer = call("sample", "painter", "--count", "1")
    assert (answer.code, answer.err) == (0, "")
    panel = np.asarray(Image.open(answer.out.split("images: ")[1].strip()))
    assert panel.shape[0] > 2 * 96
