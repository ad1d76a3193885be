"""Tokens of a file are measured as a loop counts them, whatever the order of their axes."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from vector_quantize_pytorch import ResidualVQ

from vqtool.diagnostics import InputError, measure_codebooks, stats
from vqtool.diagnostics.recording import token_layout
from vqtool.diagnostics.recording.measure_tokens import measure_tokens
from vqtool.diagnostics.recording.token_layout import TokenLayout

ORDERS = ["images,tokens,layers", "images,layers,tokens", "layers,images,tokens", "tokens,images,layers"]


def drawn(images=40, T=6, Q=3, K=8, seed=0):
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(0.3, (images, T, Q)) - 1, K - 1).astype(np.uint8)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(token_layout, "CHUNK", 50)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.usefixtures("small_chunks")
def test_every_order_of_the_axes_says_the_same(order):
    tokens = drawn()
    named = dict(zip(("images", "tokens", "layers"), range(3), strict=True))
    turned = tokens.transpose([named[name] for name in order.split(",")])
    measured = measure_tokens(TokenLayout.of(turned, order), [8])
    assert measured.codes == (8, 8, 8)
    for layer, usage in enumerate(measured.usage):
        assert usage == stats.usage_of_images(tokens[..., layer], 8, "the tokens")
    told = Counter(map(tuple, tokens.reshape(-1, 3).tolist()))
    found = measured.layers.collisions
    assert (found.tokens, found.distinct, found.largest) == (240, len(told), max(told.values()))
    whole = stats.count_tuples(tokens.reshape(-1, 3), (8,) * 3, np.repeat(stats.deal(40), 6))
    assert measured.layers.conditional == stats.conditional_entropies(whole)


def test_height_and_width_are_tokens_of_an_image():
    tokens = drawn(Q=1)[..., 0]
    images = measure_tokens(TokenLayout.of(tokens.reshape(40, 2, 3), None), [8])
    assert images.usage == measure_tokens(TokenLayout.of(tokens, None), [8]).usage
    assert images.usage[0].units.number == 40
    assert images.layers is None


def test_without_images_there_are_no_intervals():
    (usage,) = measure_tokens(TokenLayout.of(drawn().ravel(), None), [8]).usage
    assert usage == stats.usage(np.bincount(drawn().ravel(), minlength=8), "the tokens")
    layers = measure_tokens(TokenLayout.of(drawn()[:, 0], "tokens,layers"), [8]).layers
    assert [(each.low, each.high) for each in layers.conditional] == [(0, 3)] * 3


def test_items_stand_each_for_itself():
    measured = measure_tokens(TokenLayout.of(drawn()[:, 0], "items,layers"), [8])
    assert measured.usage[0].units.number == 40
    assert measured.usage[0].units.name == "items"
    assert measured.layers.conditional[0].low > 0


@pytest.mark.usefixtures("small_chunks")
def test_what_has_no_code_is_left_out_and_counted():
    tokens = drawn().astype(np.int16)
    tokens[3] = -1
    tokens[5:9, 2:, 2] = -1
    measured = measure_tokens(TokenLayout.of(tokens, "images,tokens,layers"), [8])
    assert measured.none == (6, 6, 6 + 16)
    for layer, usage in enumerate(measured.usage):
        there = tokens[..., layer][tokens[..., layer] >= 0]
        assert (usage.tokens, usage.used) == (len(there), len(np.unique(there)))
        assert usage.perplexity == pytest.approx(float(stats.perplexity(np.bincount(there))))
        assert usage.units.number == 39  # an image without a token is none
    assert (measured.layers.collisions.tokens, measured.layers.collisions.incomplete) == (218, 22)


def test_a_number_of_codes_that_is_not_told_is_the_largest_index_and_one_of_each_layer():
    tokens = np.array([[0, 5], [1, 2]])
    measured = measure_tokens(TokenLayout.of(tokens, "items,layers"))
    assert (measured.codes, measured.codes_told) == ((2, 6), False)
    assert measure_tokens(TokenLayout.of(tokens, "items,layers"), [4, 6]).codes == (4, 6)


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ("items,layer", "did you mean 'layers'"),
        ("items", "names 1 axes, the tokens have 2: 5 x 3"),
        ("items,layers,tokens", "names 3 axes"),
        ("items,images", "twice"),
        ("layers,layers", "twice"),
    ],
)
def test_a_layout_that_is_none_is_refused_in_one_line(layout, told):
    with pytest.raises(InputError, match=told):
        TokenLayout.of(np.zeros((5, 3), int), layout)


@pytest.mark.parametrize(
    ("tokens", "codes", "told"),
    [
        ([[0, 8]], [8], r"codes 8: 8 in layer 1 of the tokens is outside \[0, 8\)"),
        ([[0, -2]], [8], "-2 is no code; what has none is -1"),
        ([[-1, -1]], None, "every token is -1"),
        ([[0, 1]], [8, 8, 8], "codes 8, 8, 8 are 3 numbers for 2 layers"),
        ([[0, 2**40]], None, "must be between 1 and 1,048,576"),
        (np.array([[0, 2**64 - 1]], np.uint64), [8], "outside"),
    ],
)
def test_tokens_that_are_no_codes_are_refused_in_one_line(tokens, codes, told):
    with pytest.raises(InputError, match=told) as error:
        measure_tokens(TokenLayout.of(np.asarray(tokens), "items,layers"), codes)
    assert "\n" not in str(error.value)


def test_the_file_of_a_trained_residual_quantizer_says_what_its_model_says():
    """End to end: latents in nested clusters, a quantizer trained on them, its indices as semantic ids."""
    torch.manual_seed(0)
    centres = torch.randn(12, 16) * 3
    items = torch.cat([centre + torch.randn(40, 16) @ torch.diag(torch.linspace(1, 0.05, 16)) for centre in centres])
    vq = ResidualVQ(dim=16, codebook_size=16, num_quantizers=3, kmeans_init=True)
    for _ in range(10):
        vq(items[None])
    vq.eval()
    with torch.no_grad():
        ids = vq(items[None])[1][0].numpy()
    from_file = measure_tokens(TokenLayout.of(ids, "items,layers"), [16], "ids.npy").layers
    (from_model,) = measure_codebooks(nn.Sequential(vq), items.reshape(48, 1, 10, 16)).layers.values()
    assert from_file.collisions == from_model.collisions
    rows = [tuple(row) for row in ids.tolist()]
    times = Counter(rows)
    assert from_file.collisions.rate == pytest.approx(1 - len(times) / 480)
    assert from_file.collisions.shared == pytest.approx(sum(times[row] > 1 for row in rows) / 480)
    for layer in range(3):
        plug_in = 0.0
        for prefix, n in Counter(row[:layer] for row in rows).items():
            after = Counter(row[layer] for row in rows if row[:layer] == prefix)
            plug_in -= sum(m * math.log2(m / n) for m in after.values()) / 480
        assert from_file.conditional[layer].plug_in == pytest.approx(plug_in)
        assert from_model.conditional[layer].plug_in == pytest.approx(plug_in)
        assert from_file.conditional[layer].low <= from_file.conditional[layer].high
    left = from_model.residual_energy
    assert 0 < left[2] < left[1] < left[0] < 1
