import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from skimage.color import rgb2lab

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.data import DecodeReport, Images, normalize
from vqtool.vqgan.data.images import Maps
from vqtool.vqgan.data.views import VIEWS, label_colours, view_named

SPECS = [name if view.number is None else f"{name}:{4}" for name, view in VIEWS.items()]


def crops_for(view, count=3, side=16):
    """Smooth crops of bytes, or ids below the labels, as the view reads them."""
    generator = torch.Generator().manual_seed(0)
    planes = 3 if view.source == "image" else 1
    coarse = torch.rand(count, planes, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)
    return (smooth * (255 if view.labels is None else view.labels - 0.01)).to(torch.uint8)


@pytest.fixture(params=SPECS)
def view(request):
    return view_named(request.param)


# ---- any view


def test_crops_become_what_the_model_sees_and_that_becomes_a_picture(view):
    crops = crops_for(view)
    values = view.prepare(crops)
    assert values.shape == (3, view.channels, 16, 16)
    assert values.dtype == torch.float32
    assert values.std() > 0.1
    picture = view.picture(values)
    assert picture.shape == (3, 3, 16, 16)
    assert -1 <= picture.min() < picture.max() <= 1


def test_every_crop_is_seen_for_itself_and_none_is_changed(view):
    crops = crops_for(view)
    before = crops.clone()
    together = view.prepare(crops)
    assert torch.equal(together, torch.cat([view.prepare(crop[None]) for crop in crops]))
    assert torch.equal(crops, before)


def test_a_mirrored_crop_looks_mirrored(view):
    crops = crops_for(view)
    assert torch.allclose(view.prepare(crops.flip(-1)), view.prepare(crops).flip(-1), atol=1e-6)


def test_what_is_loaded_for_a_device_is_what_is_prepared(view):
    crops = crops_for(view)
    assert torch.equal(view.load(crops, "cpu"), view.prepare(crops))


def test_what_a_model_exaggerates_is_still_a_picture(view):
    values = 5 * torch.randn(2, view.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    assert view.picture(values).abs().max() <= 1


# ---- each view


def test_a_photograph_is_its_bytes():
    view = view_named("image")
    assert torch.equal(view.prepare(crops_for(view)), normalize(crops_for(view)))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_constant_image_has_no_edges(level):
    crops = torch.full((2, 3, 16, 16), level, dtype=torch.uint8)
    assert (view_named("edges").prepare(crops) == -1).all()


def test_edges_are_white_where_brightness_jumps():
    crops = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    crops[..., 16:] = 255
    edges = view_named("edges").prepare(crops)
    assert edges.unique().tolist() == [-1, 1]
    assert torch.equal(edges[:, 0], edges[:, 1])
    assert torch.equal(edges[:, 0], edges[:, 2])
    rows, columns = (edges[0, 0] == 1).nonzero(as_tuple=True)
    assert set(columns.tolist()) <= {15, 16}
    assert len(set(rows.tolist())) > 24


def test_texture_finer_than_the_smoothing_has_no_edges():
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[..., ::2] = 255
    edges = view_named("edges").prepare(stripes)
    assert (edges[..., 4:-4] == -1).all()  # what lies beyond the crop is not known: its margin is less smooth


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_low_resolution_is_the_mean_of_each_square_in_all_of_it(factor):
    view = view_named(f"lowres:{factor}")
    crops = crops_for(view)
    expected = np.empty((3, 3, 16, 16))
    for top in range(0, 16, factor):
        for left in range(0, 16, factor):
            place = (..., slice(top, top + factor), slice(left, left + factor))
            expected[place] = normalize(crops).double().numpy()[place].mean((-2, -1), keepdims=True)
    np.testing.assert_allclose(view.prepare(crops).numpy(), expected, atol=1e-6)


def test_low_resolution_is_a_quarter_where_nothing_is_said():
    assert view_named("lowres").factor == 4


@pytest.mark.parametrize("labels", [2, 7, 256])
def test_labels_are_one_hot(labels):
    view = view_named(f"segmentation:{labels}")
    ids = torch.randint(0, labels, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    values = view.prepare(ids)
    assert (values.sum(1) == 1).all()
    assert set(values.unique().tolist()) == {0, 1}
    assert torch.equal(values.argmax(1), ids[:, 0].long())


def test_the_picture_of_logits_shows_the_likeliest_label_in_its_colour():
    logits = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    picture = view_named("segmentation:5").picture(logits)
    expected = normalize(torch.from_numpy(label_colours())[logits.argmax(1)]).permute(0, 3, 1, 2)
    assert torch.equal(picture, expected)
    assert len(picture.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0)) == 5


@pytest.mark.parametrize("labels", [2, 20, 151, 256])
def test_colours_of_labels_are_further_apart_than_chance_would_put_them(labels):
    colours = label_colours()[:labels]
    assert colours[0].tolist() == [0, 0, 0]
    chance = np.random.default_rng(1).integers(0, 256, (labels, 3), np.uint8)
    assert pdist(rgb2lab(colours / 255)).min() > max(12, 1.5 * pdist(rgb2lab(chance / 255)).min())


def test_depth_is_a_grey_image():
    view = view_named("depth")
    values = view.prepare(crops_for(view))
    assert torch.equal(values, normalize(crops_for(view)).expand(-1, 3, -1, -1))


# ---- which data a view can be had of


def data(maps=None):
    planes = 3 if maps is None else 4
    pixels, table = np.arange(planes * 64, dtype=np.uint8), np.array([(0, 8, 8, 0, 0, 0)], np.int64)
    return Images(pixels, table, 8, (), [], DecodeReport(1, 1.0, False), "photos", "key", maps)


def test_views_of_colours_and_of_maps_read_their_own_planes():
    images = data(Maps("depth", 255))
    assert view_named("edges").over(images).batch([0])[0].shape == (1, 3, 8, 8)
    assert view_named("depth").over(images).batch([0])[0].flatten().tolist() == list(range(192, 256))
    assert torch.equal(view_named("image").over(data()).batch([0])[0], data().batch([0])[0])


@pytest.mark.parametrize(
    ("spec", "maps", "message"),
    [
        ("segmentation:9", None, "data set 'photos' has no maps: view segmentation:9 needs pairs:PATH with segm"),
        ("depth", Maps("segmentation", 3), "has segmentation maps: view depth needs pairs:PATH with depths/ in it"),
        (
            "segmentation:9",
            Maps("depth", 3),
            "has depth maps: view segmentation:9 needs pairs:PATH with segmentations/",
        ),
        ("segmentation:9", Maps("segmentation", 9), "has label id 9: .* up to 8; write segmentation:10"),
        ("segmentation:9", Maps("segmentation", 255), "has label id 255: .* up to 8; write segmentation:256"),
    ],
)
def test_data_without_the_right_maps_are_refused_in_one_line(spec, maps, message):
    with pytest.raises(InputError, match=message) as error:
        view_named(spec).over(data(maps))
    assert "\n" not in str(error.value)


def test_labels_up_to_the_last_have_room():
    assert len(view_named("segmentation:9").over(data(Maps("segmentation", 8)))) == 1


# ---- specs


def test_a_view_is_called_by_its_spec(view):
    assert view_named(view.spec).prepare(crops_for(view)).equal(view.prepare(crops_for(view)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("segmentatoin:5", "view 'segmentatoin' is unknown; did you mean 'segmentation'?"),
        ("", "view '' is unknown (choose from depth, edges, image, lowres, segmentation)"),
        ("edges:2", "view 'edges:2': edges takes no number"),
        ("depth:", "view 'depth:': depth takes no number"),
        ("segmentation", "view 'segmentation' should read segmentation:N, where N is the number of labels, 2 to 256"),
        ("segmentation:257", "should read segmentation:N"),
        ("segmentation:1", "should read segmentation:N"),
        ("lowres:1", "view 'lowres:1' should read lowres:N, where N is the factor, 2 to 256"),
        ("lowres:", "should read lowres:N"),
        ("lowres:-4", "should read lowres:N"),
        ("lowres:4.5", "should read lowres:N"),
        ("lowres:²", "should read lowres:N"),
    ],
)
def test_a_wrong_spec_is_refused_with_what_is_right(spec, message):
    with pytest.raises(InputError) as error:
        view_named(spec)
    assert message in str(error.value)
