import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.sampling import panels
from vqtool.vqgan.sampling.panels import panel, save_png, to_pixels

GAP = 4


def colours(*shape, size=(8, 8)):
    """Images of one colour each, no two alike and none of them grey, as text is."""
    count = int(np.prod(shape))
    levels = torch.linspace(-0.9, 0.9, count)
    pixels = torch.stack((levels, levels.flip(0), torch.ones(count)), 1)[:, :, None, None]
    return pixels.expand(count, 3, *size).reshape(*shape, 3, *size)


def boxes(page, images):
    """Where on the page each one-coloured image is, as (left, top, right, bottom); it fills its box."""
    found = []
    for colour in to_pixels(images.reshape(-1, *images.shape[-3:]))[:, 0, 0]:
        ys, xs = np.nonzero((np.asarray(page) == colour).all(-1))
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert len(xs) == (box[2] - box[0]) * (box[3] - box[1])
        found.append(tuple(map(int, box)))
    return found


def ink(page, images):
    """The page with its images taken out: what is not white is text."""
    left = page.copy()
    for box in boxes(page, images):
        left.paste("white", box)
    return left


def inked(page, box=None):
    """The bounds of what is not white within ``box``."""
    part = page if box is None else page.crop(box)
    return ImageChops.invert(part).getbbox()


# ---- pixels


def test_every_8_bit_level_survives_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8).expand(2, 3, 1, 256)
    assert (to_pixels(levels / 127.5 - 1) == levels.movedim(1, -1).numpy()).all()


def test_values_are_rounded_and_clamped():
    values = torch.tensor([-9.0, -1.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 1.0, 9.0]).expand(3, 1, 6)
    assert to_pixels(values)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


# ---- the grid


def test_small_images_are_enlarged_by_a_whole_factor_without_smoothing():
    images = torch.rand(2, 3, 3, 20, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    page = np.asarray(panel(images))
    height, width = 100, 150
    assert page.shape == (2 * height + 3 * GAP, 3 * width + 4 * GAP, 3)
    for row in range(2):
        for column in range(3):
            top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
            cell = page[top : top + height, left : left + width]
            assert (cell == to_pixels(images[row, column]).repeat(5, 0).repeat(5, 1)).all()


@pytest.mark.parametrize(
    ("size", "least", "cell"), [(32, 96, 96), (64, 96, 128), (96, 96, 96), (256, 96, 256), (8, 20, 24)]
)
def test_a_cell_has_at_least_so_many_pixels(size, least, cell):
    images = colours(1, 1, size=(size, size))
    assert boxes(panel(images, least_cell=least), images) == [(GAP, GAP, GAP + cell, GAP + cell)]


def test_a_list_of_images_is_set_in_rows():
    images = colours(7)
    page = panel(images, columns_per_row=3)
    assert [box[:2] for box in boxes(page, images)] == [(4 + 100 * (i % 3), 4 + 100 * (i // 3)) for i in range(7)]
    assert page.size == (304, 304)
    assert panel(colours(2), columns_per_row=3).width == 204


def test_a_grid_keeps_its_rows():
    images = colours(2, 5)
    assert boxes(panel(images, columns_per_row=3), images)[5][:2] == (GAP, GAP + 100)


# ---- labels

LONG = "n01440764_tench_Tinca_tinca_and_no_space_in_it_at_all_" * 9
NAMES = ["dog", "golden retriever, a gun dog with a dense coat " * 9, LONG, ""]


def test_labels_stand_beside_and_above_and_below_their_images():
    images = colours(2, 2)
    page = panel(images, rows=["a", "b"], columns=["c", "d"], captions=["e", "f", "g", "h"])
    text, places = ink(page, images), boxes(page, images)
    for left, _, right, bottom in places:
        assert inked(text, (left, bottom, right, bottom + 20))
    for left, top, right, _ in places[:2]:
        assert inked(text, (left, top - 20, right, top))
    for _, top, left, bottom in ((0, box[1], box[0], box[3]) for box in places[::2]):
        assert inked(text, (0, top, left, bottom))


@pytest.mark.parametrize("name", NAMES[1:3], ids=["words", "one word"])
@pytest.mark.parametrize("size", [32, 256])
def test_no_label_touches_a_neighbour_or_the_border(name, size):
    images = colours(3, 3, size=(size, size))
    page = panel(images, rows=[name] * 3, columns=[name] * 3, captions=[name] * 9)
    text, places = ink(page, images), boxes(page, images)
    left, top, right, bottom = inked(text)
    assert left >= GAP - 1
    assert top >= GAP - 1
    assert right <= page.width - GAP + 1
    assert bottom <= page.height
    for x in (places[0][0], places[1][0], places[2][0]):  # the gap left of each column
        assert not inked(text, (x - 2, places[0][1], x - 1, page.height))
    for (_, _, _, above), (_, below, _, _) in zip(places[::3], places[3::3], strict=False):
        assert not inked(text, (0, below - 2, page.width, below - 1))
        assert not inked(text, (0, above + 1, page.width, above + 2))


def test_a_row_label_is_half_way_down_its_image():
    images = colours(1, 1)
    page = panel(images, rows=["xxxx"])
    _, top, _, bottom = inked(ink(page, images))
    assert abs((top + bottom) / 2 - page.height / 2) < 6


def test_a_short_label_is_whole_and_a_long_one_ends_with_an_ellipsis():
    font = panels._font(13)
    assert panels._wrapped("dog", font, 96, 3) == ["dog"]
    lines = panels._wrapped("golden retriever, a gun dog with a dense coat", font, 120, 2)
    assert lines[0] == "golden retriever,"
    assert lines[1].startswith("a gun dog")
    assert lines[1].endswith("…")
    assert "".join(panels._wrapped(LONG[:40], font, 96, 9)) == LONG[:40]


@pytest.mark.parametrize("width", [30, 96, 200])
@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES, ids=["short", "words", "one word", "empty"])
def test_wrapped_lines_have_room(name, width, most):
    font = panels._font(13)
    lines = panels._wrapped(name, font, width, most)
    assert 1 <= len(lines) <= most
    assert all(font.getlength(line) <= width for line in lines)


@pytest.mark.parametrize(
    "name",
    [
        "\ud800",
        "a\x00\x1b[0m",
        "two\nlines\r\n\tand a tab",
        "日本語" * 99,
        "שלום عربي",
        "👩\u200d👩\u200d👧",
        "a\u0300" * 99,
        "\u202e",
        " ",
        "x" * 10**6,
    ],
    ids=range(10),
)
def test_any_string_can_be_a_name(name):
    images = colours(1, 2)
    page = panel(images, rows=[name], columns=[name] * 2, captions=[name] * 2)
    assert len(boxes(page, images)) == 2


def test_letters_beyond_ascii_are_drawn():
    images = torch.zeros(1, 1, 3, 8, 8)
    drawn = [panel(images, rows=[text]) for text in ("Löwe", "Lowe", "лев", "лес", "λέων")]
    assert all(one != other for one, other in itertools.combinations(drawn, 2))


# ---- wrong input


@pytest.mark.parametrize("shape", [(3, 8, 8), (0, 3, 8, 8), (2, 0, 3, 8, 8), (2, 1, 8, 8)], ids=str)
def test_what_is_no_panel_is_refused(shape):
    with pytest.raises(InputError, match=r"^a panel is of \(R, C, 3, H, W\) or \(N, 3, H, W\) images, not \("):
        panel(torch.zeros(shape))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"rows": ["a"]}, "a panel of 2 x 3 cells has 2 labels for its rows, not 1"),
        ({"columns": ["a"] * 2}, "a panel of 2 x 3 cells has 3 labels for its columns, not 2"),
        ({"captions": ["a"] * 2}, "a panel of 2 x 3 cells has 5 labels for its captions, not 2"),
    ],
    ids=["rows", "columns", "captions"],
)
def test_labels_are_as_many_as_what_they_label(labels, message):
    with pytest.raises(InputError) as caught:
        panel(colours(5), columns_per_row=3, **labels)
    assert str(caught.value) == message


# ---- files


def test_a_saved_panel_is_the_panel(tmp_path):
    page = panel(colours(2, 2), rows=["a", "b"])
    save_png(page, tmp_path / "panel.png")
    save_png(page, tmp_path / "panel.png")
    assert Image.open(tmp_path / "panel.png").convert("RGB") == page
    assert [path.name for path in tmp_path.iterdir()] == ["panel.png"]


def test_a_panel_that_cannot_be_saved_leaves_the_old_one(tmp_path, monkeypatch):
    save_png(panel(colours(1)), tmp_path / "panel.png")
    before = (tmp_path / "panel.png").read_bytes()

    def torn(image, path, *_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        save_png(panel(colours(2)), tmp_path / "panel.png")
    assert (tmp_path / "panel.png").read_bytes() == before
