"""What stands before the codes."""

import numpy as np
import pytest
import torch

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.autoencoder.model import build_model
from vqtool.vqgan.data import Images
from vqtool.vqgan.data.images import DecodeReport, Maps
from vqtool.vqgan.data.views import view_named
from vqtool.vqgan.transformer.conditions import (
    ClassCondition,
    CoordinateCondition,
    NoCondition,
    SpatialCondition,
    chosen,
    open_condition,
)
from vqtool.vqgan.transformer.scenes import Wanted
from vqtool.vqgan.transformer.split import CodeSplit
from vqtool.vqgan.transformer.tokenizer import Tokenizer
from vqtool.vqgan.transformer.tokens import codes_of

GRID = (4, 4)
LEVELS = 16


@pytest.fixture
def edge_stage(tiny, splits, tmp_path):
    """A tokenizer of edges with 2 x 2 codes an image; random weights, and codes that are latents of the edges."""
    config = tiny(data={"view": "edges"}, model={"ch_mult": [1, 1, 1, 1]})
    model = build_model(config)
    edges = view_named("edges").prepare(splits["train"].batch(range(24))[0])
    latents = model.latents(edges).permute(0, 2, 3, 1).flatten(0, 2).unique(dim=0)
    model.quantize.overwrite(torch.arange(16), latents[torch.linspace(0, len(latents) - 1, 16).long()].detach())
    return Tokenizer(config, model.state_dict(), tmp_path)


@pytest.fixture
def conditioned(second_stage, splits, tmp_path):
    """A function from settings to their condition, as a run opens it."""

    def make(tokenizer=None, /, **condition):
        config = second_stage(condition=condition)
        return open_condition(config, splits["train"].classes, GRID, tokenizer, tmp_path / "cache")

    return make


def plain(count):
    return np.zeros(count, bool)


# ---- no condition


def test_without_a_condition_a_token_of_its_own_begins(conditioned, splits):
    condition = conditioned(kind="none")
    assert isinstance(condition, NoCondition)
    assert (condition.tokens, condition.length) == (0, 1)
    prefixes = condition.of(splits["test"])(np.arange(3), plain(3))
    assert prefixes.dtype == torch.int64
    assert prefixes.tolist() == [[16]] * 3


@pytest.mark.parametrize("sos", [0, 5, 16])
def test_the_start_token_can_be_chosen(second_stage, splits, tmp_path, sos):
    config = second_stage(transformer={"sos": sos})
    condition = open_condition(config, splits["train"].classes, GRID, None, tmp_path)
    assert condition.of(splits["test"])(np.arange(2), np.array([True, False])).tolist() == [[sos]] * 2


# ---- classes


def test_tokens_of_classes_follow_those_of_the_codes(conditioned, splits):
    condition = conditioned(kind="class")
    assert isinstance(condition, ClassCondition)
    assert (condition.tokens, condition.length) == (2, 1)
    rows = np.array([7, 0, 3, 3])
    images = splits["train"]
    prefixes = condition.of(images)(rows, np.array([True, False, False, True]))
    assert prefixes.dtype == torch.int64
    assert prefixes.tolist() == [[16 + images.labels[row].item()] for row in rows]
    every = condition.of(images)(np.arange(24), plain(24))
    assert every.unique().tolist() == [16, 17]


# ---- coordinates


@pytest.fixture
def planted():
    """A picture of 24 x 40 pixels and three crops of 16 x 16: the top left corner, the bottom right one, between."""
    crops = np.array([[0, 24, 40, 0, 0, 0], [0, 24, 40, 8, 24, 0], [0, 24, 40, 3, 7, 0]])
    return Images(np.zeros(3 * 24 * 40, np.uint8), crops, 16, ("all",), [], DecodeReport(1, 1.0, False))


def coord_stage(top, left, height, width, *, mirrored=False):
    """Tokens (4, 4) of a crop of 16 x 16, pixel by pixel: each is the mean of 4 x 4 positions, rounded to a level."""
    positions = [
        [((top + row) * width + left + column) / (height * width) for column in range(16)] for row in range(16)
    ]
    if mirrored:
        positions = [row[::-1] for row in positions]
    tokens = []
    for i in range(4):
        tokens.append([])
        for j in range(4):
            mean = sum(positions[4 * i + a][4 * j + b] for a in range(4) for b in range(4)) / 16
            tokens[-1].append(min(round(mean * LEVELS), LEVELS - 1))
    return tokens


def test_coordinates_are_those_of_a_slow_twin(conditioned, planted):
    condition = conditioned(kind="coordinates", levels=LEVELS)
    assert isinstance(condition, CoordinateCondition)
    assert (condition.tokens, condition.length) == (LEVELS, 16)
    prefixes = condition.of(planted)(np.arange(3), plain(3))
    assert prefixes.dtype == torch.int64
    corners = [(0, 0), (8, 24), (3, 7)]
    assert (prefixes - 16).view(3, 4, 4).tolist() == [coord_stage(*corner, 24, 40) for corner in corners]


def test_coordinates_of_mirrored_crops_are_mirrored(conditioned, planted):
    of = conditioned(kind="coordinates", levels=LEVELS).of(planted)
    mirrored = np.array([False, True, False, True])
    rows = np.array([2, 2, 1, 0])
    grids = (of(rows, mirrored) - 16).view(4, 4, 4).tolist()
    expected = [(3, 7), (3, 7), (8, 24), (0, 0)]
    assert grids == [coord_stage(*at, 24, 40, mirrored=flip) for at, flip in zip(expected, mirrored, strict=True)]
    assert grids[0] != grids[1]


def test_a_coordinate_never_reaches_the_next_level(conditioned):
    # The last pixels of a long picture round up to 16 / 16, which would be the token that says nothing.
    crops = np.array([[0, 4000, 16, 3984, 0, 0]])
    images = Images(np.zeros(3 * 4000 * 16, np.uint8), crops, 16, ("all",), [], DecodeReport(1, 1.0, False))
    prefixes = conditioned(kind="coordinates", levels=LEVELS).of(images)(np.arange(1), plain(1))
    assert images.coordinates([0]).mean() * LEVELS > LEVELS - 0.5
    assert prefixes.unique().tolist() == [16 + LEVELS - 1]


# ---- spatial


def test_a_spatial_condition_is_the_codes_of_its_own_stage(conditioned, edge_stage, splits):
    condition = conditioned(edge_stage, kind="spatial", stage="runs/edges")
    assert isinstance(condition, SpatialCondition)
    assert (condition.tokens, condition.length) == (16, 4)
    rows, mirrored = np.array([5, 2, 2, 19]), np.array([False, True, False, True])
    crops = splits["train"].batch(rows)[0]
    crops[mirrored] = crops[mirrored].flip(-1)
    edges = view_named("edges").prepare(crops)
    prefixes = condition.of(splits["train"])(rows, mirrored)
    assert torch.equal(prefixes, 16 + edge_stage.model.encode(edges).indices.flatten(1))
    assert prefixes.dtype == torch.int64
    assert prefixes.unique().numel() > 2
    assert not torch.equal(prefixes[1], prefixes[2])


def test_a_segmentation_is_read_from_the_maps(conditioned, tiny, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 3, (2, 4, 16, 16), np.uint8)
    crops = np.array([[offset, 16, 16, 0, 0, 0] for offset in (0, 4 * 16 * 16)])
    report, maps = DecodeReport(2, 1.0, False), Maps("segmentation", 2)
    images = Images(pixels.ravel(), crops, 16, ("all",), [], report, key="planted", maps=maps)
    config = tiny(data={"view": "segmentation:3"}, model={"ch_mult": [1, 1, 1]}, quantizer={"init": "normal"})
    stage = Tokenizer(config, build_model(config).state_dict(), tmp_path)
    mirrored = np.array([False, True])
    prefixes = conditioned(stage, kind="spatial", stage="runs/labels").of(images)(np.arange(2), mirrored)
    labels = torch.from_numpy(np.stack([pixels[0, 3:], pixels[1, 3:, :, ::-1]]))
    assert torch.equal(prefixes, 16 + stage.encode(labels).flatten(1))
    assert prefixes.unique().numel() > 2


def test_codes_of_mirrored_conditions_are_not_computed_in_vain(conditioned, edge_stage, splits, tmp_path):
    of = conditioned(edge_stage, kind="spatial", stage="runs/edges").of(splits["test"])
    of(np.arange(4), plain(4))
    assert len(list((tmp_path / "cache" / "codes").iterdir())) == 1
    of(np.arange(4), np.array([False, True, False, False]))
    assert len(list((tmp_path / "cache" / "codes").iterdir())) == 2


def test_a_condition_of_another_image_size_is_refused(conditioned, tiny, tmp_path):
    config = tiny(data={"image_size": 32})
    stage = Tokenizer(config, build_model(config).state_dict(), tmp_path)
    with pytest.raises(InputError) as error:
        conditioned(stage, kind="spatial", stage="runs/edges")
    assert str(error.value) == (
        "the condition's first stage runs/edges is for images of 32 pixels, the images here have 16"
    )


# ---- scenes of new images


@pytest.fixture
def wanted(splits):
    """A function from what differs to 6 new images that are wanted, under the conditions of the test split."""

    def make(**own):
        return Wanted(**{"count": 6, "grid": GRID, "size": None, "labels": [], "split": "test", **own})

    return make


def opened(images):
    """Opens ``images`` and notes in which sizes they were asked for."""
    sides = []
    return (lambda side: sides.append(side) or images), sides


def never(side):
    raise AssertionError("no data are needed")


def test_without_a_condition_nothing_is_named_and_no_data_are_opened(conditioned, wanted):
    scene = conditioned(kind="none").scenes(wanted(images=never))(np.arange(4))
    assert scene.prefix.tolist() == [[16]] * 4
    assert (scene.names, scene.seen) == ([], None)


def test_classes_come_one_after_the_other_and_no_data_are_opened(conditioned, wanted):
    condition = conditioned(kind="class")
    assert condition.classes == ("even", "odd")
    scenes = condition.scenes(wanted(images=never, labels=[1, 0]))
    whole, last = scenes(np.arange(6)), scenes(np.array([5, 5]))
    assert whole.prefix.tolist() == [[17]] * 3 + [[16]] * 3
    assert whole.names == ["odd"] * 3 + ["even"] * 3
    assert (last.prefix.tolist(), last.names) == ([[16]] * 2, ["even"] * 2)
    assert whole.prefix.dtype == torch.int64


@pytest.mark.parametrize(("count", "rows"), [(4, [0, 2, 4, 6]), (10, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1])])
def test_other_conditions_are_those_of_the_split_evenly_spread(conditioned, splits, wanted, count, rows):
    condition, (images, sides) = conditioned(kind="coordinates", levels=LEVELS), opened(splits["test"])
    scene = condition.scenes(wanted(images=images, count=count))(np.arange(count))
    assert torch.equal(scene.prefix, condition.of(splits["test"])(np.array(rows), plain(count)))
    assert scene.names == [f"test {row}" for row in rows]
    assert scene.seen is None
    assert sides == [None]


def test_a_larger_image_is_a_whole_picture_of_coordinates(conditioned, wanted):
    condition = conditioned(kind="coordinates", levels=LEVELS)
    scene = condition.scenes(wanted(images=never, size=(24, 40), grid=(6, 10)))(np.arange(3))
    assert scene.prefix.shape == (3, 6, 10)
    means = [[(40 * (4 * i + 1.5) + 4 * j + 1.5) / (24 * 40) for j in range(10)] for i in range(6)]
    expected = [[16 + min(round(mean * LEVELS), LEVELS - 1) for mean in row] for row in means]
    assert scene.prefix.tolist() == [expected] * 3
    assert scene.names == []


def test_a_spatial_condition_shows_what_it_sees(conditioned, edge_stage, splits, wanted):
    condition, (images, sides) = conditioned(edge_stage, kind="spatial", stage="edges"), opened(splits["test"])
    rows = np.array([0, 1, 2, 4, 5, 6])
    scene = condition.scenes(wanted(images=images))(np.arange(6))
    assert torch.equal(scene.prefix, condition.of(splits["test"])(rows, plain(6)))
    assert torch.equal(scene.seen, condition.pictures(splits["test"], rows))
    edges = edge_stage.view.picture(view_named("edges").prepare(splits["test"].batch(rows)[0]))
    assert torch.equal(scene.seen, edges)
    assert sides == [None]


def test_a_larger_image_lies_over_larger_crops_of_a_spatial_condition(conditioned, edge_stage, splits, wanted):
    condition, (images, sides) = conditioned(edge_stage, kind="spatial", stage="edges"), opened(splits["test"])
    scene = condition.scenes(wanted(images=images, size=(16, 16), grid=(2, 2), count=2))(np.arange(2))
    assert torch.equal(scene.prefix.flatten(1), condition.of(splits["test"])(np.array([0, 4]), plain(2)))
    assert scene.names == ["test 0", "test 4"]
    assert sides == [16]


@pytest.mark.parametrize(("size", "grid", "factor"), [((16, 32), (2, 4), 8), ((32, 32), (8, 8), 4)], ids=str)
def test_a_larger_spatial_image_is_square_and_has_as_many_pixels_to_a_code(
    conditioned, edge_stage, wanted, size, grid, factor
):
    condition = conditioned(edge_stage, kind="spatial", stage="edges")
    with pytest.raises(InputError, match=rf"is square, and both .* \(here {factor} and 8\)$"):
        condition.scenes(wanted(images=never, size=size, grid=grid))


def test_only_classes_are_told_in_words_and_only_spatial_conditions_in_pictures(conditioned, splits):
    images, rows = splits["train"], np.array([7, 0, 3])
    assert conditioned(kind="class").captions(images, rows) == [images.classes[images.labels[row]] for row in rows]
    assert conditioned(kind="class").pictures(images, rows) is None
    for kind in ("none", "coordinates"):
        condition = conditioned(kind=kind)
        assert condition.captions(images, rows) is condition.pictures(images, rows) is None
        assert condition.classes == ()


# ---- rows of a split


def test_each_row_comes_from_the_crops_or_from_the_mirrored_ones():
    codes = {flip: np.arange(24).reshape(6, 2, 2).astype(np.uint16) + 100 * flip for flip in (False, True)}
    rows, mirrored = np.array([4, 0, 4, 5, 0]), np.array([False, True, True, False, False])
    result = chosen(codes.__getitem__, rows, mirrored)
    assert result.dtype == torch.int64
    expected = [codes[bool(flip)][row].tolist() for row, flip in zip(rows, mirrored, strict=True)]
    assert result.tolist() == expected


@pytest.mark.parametrize(("mirrored", "opened"), [(False, {False}), (True, {True})])
def test_codes_that_nothing_is_chosen_from_are_not_opened(mirrored, opened):
    seen = set()

    def codes(flip):
        seen.add(flip)
        return np.zeros((3, 2, 2), np.uint16)

    chosen(codes, np.arange(3), np.full(3, mirrored))
    assert seen == opened


def test_a_split_mirrors_codes_and_condition_together(conditioned, tokenizer, edge_stage, splits, tmp_path):
    condition = conditioned(edge_stage, kind="spatial", stage="runs/edges")
    images, cache = splits["train"], tmp_path / "cache"
    split = CodeSplit(tokenizer, images, condition, cache, flip=True)
    rows, draws = np.array([3, 9, 1]), np.array([[0.9, 0.9, 0.49], [0.1, 0.1, 0.5], [0.9, 0.1, 0.99]])
    prefixes, codes = split.drawn_batch(rows, draws)
    for row, flip, prefix, grid in zip(rows, (False, True, True), prefixes, codes, strict=True):
        for stage, found in ((edge_stage, prefix - 16), (tokenizer, grid)):
            assert np.array_equal(found, codes_of(stage, images, cache, mirrored=flip)[row].reshape(found.shape))
    assert len(split) == 24


def test_the_rows_of_an_evaluation_are_never_mirrored(conditioned, tokenizer, splits, tmp_path):
    split = CodeSplit(tokenizer, splits["test"], conditioned(kind="class"), tmp_path / "cache")
    prefixes, codes = split.batch(np.array([6, 1]))
    assert split.mirrored is None
    assert torch.equal(codes, tokenizer.encode(splits["test"].batch([6, 1])[0]))
    assert torch.equal(prefixes[:, 0], 16 + splits["test"].labels[[6, 1]])
