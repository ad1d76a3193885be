import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.sampling.decoding import complete
from vqtool.vqgan.sampling.settings import DrawingSettings
from vqtool.vqgan.transformer.gpt import GPT, SIZES, Size, adamw, load_taming_weights, size_named

SMALL = Size(layers=3, heads=4, width=32)
SOURCE = Path("second.pt")


def make_gpt(vocab_size=23, block_size=16, size=SMALL, **settings):
    """Random weights far from their initial values, so that attention and biases matter."""
    gpt = GPT(vocab_size, block_size, size, **settings).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return gpt


def random_tokens(batch=3, length=16, vocab_size=23, seed=1):
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


# ---- the file format of taming-transformers, written down from its description: key -> shape


def taming_shapes(vocab_size, block_size, layers, width, *, masks=True):
    norm = {"weight": (width,), "bias": (width,)}
    shapes = {"tok_emb.weight": (vocab_size, width), "pos_emb": (1, block_size, width)}
    for i in range(layers):
        for name in ("ln1", "ln2"):
            shapes |= {f"blocks.{i}.{name}.{key}": shape for key, shape in norm.items()}
        for name in ("key", "query", "value", "proj"):
            shapes |= {f"blocks.{i}.attn.{name}.weight": (width, width), f"blocks.{i}.attn.{name}.bias": (width,)}
        shapes |= {f"blocks.{i}.mlp.0.weight": (4 * width, width), f"blocks.{i}.mlp.0.bias": (4 * width,)}
        shapes |= {f"blocks.{i}.mlp.2.weight": (width, 4 * width), f"blocks.{i}.mlp.2.bias": (width,)}
        if masks:
            shapes[f"blocks.{i}.attn.mask"] = (1, 1, block_size, block_size)
    return shapes | {f"ln_f.{key}": shape for key, shape in norm.items()} | {"head.weight": (vocab_size, width)}


def taming_state(n_unmasked=0, **changes):
    """A state dict of ``SMALL``'s size, as that repository saves it, mask buffers included."""
    shapes = taming_shapes(23, 16, SMALL.layers, SMALL.width) | changes
    generator = torch.Generator().manual_seed(2)
    state = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    mask = torch.ones(16, 16).tril()
    mask[:n_unmasked, :n_unmasked] = 1
    return state | {name: mask.view(1, 1, 16, 16) for name in state if name.endswith("mask")}


def twin_logits(state, indices, heads, n_unmasked=0):
    """The model once more in float64, from its description, with softmax and mask written out."""
    p = {name: tensor.double() for name, tensor in state.items()}
    T, width = indices.shape[1], p["ln_f.weight"].numel()
    hidden = torch.tensor([[not (j <= i or (i < n_unmasked and j < n_unmasked)) for j in range(T)] for i in range(T)])

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred**2).mean(-1, keepdim=True)
        return centred / (variance + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    x = p["tok_emb.weight"][indices] + p["pos_emb"][:, :T]
    for i in range(SMALL.layers):
        name = f"blocks.{i}"
        y = norm(x, f"{name}.ln1")
        outputs = []
        for head in torch.arange(width).chunk(heads):
            q, k, v = (linear(y, f"{name}.attn.{part}")[..., head] for part in ("query", "key", "value"))
            scores = q @ k.transpose(1, 2) / math.sqrt(len(head))
            outputs.append(scores.masked_fill(hidden, -math.inf).softmax(-1) @ v)
        x = x + linear(torch.cat(outputs, -1), f"{name}.attn.proj")
        y = linear(norm(x, f"{name}.ln2"), f"{name}.mlp.0")
        x = x + linear(y * 0.5 * (1 + torch.erf(y / math.sqrt(2))), f"{name}.mlp.2")
    return norm(x, "ln_f") @ p["head.weight"].T


# ---- names, sizes, weights


@pytest.mark.parametrize(
    ("name", "vocab_size", "block_size", "parameters"),
    [
        ("taming", 1024, 512, 304_932_864),  # the 304.9 M of the FacesHQ, D-RIN and S-FLCKR configs
        ("taming-imagenet", 16384, 256, 1_410_640_896),  # published as "1.4B"
        ("tiny", 1024, 512, 1_121_024),
        ("small", 1024, 512, 5_394_432),
        ("base", 1024, 512, 87_022_080),
    ],
)
def test_a_size_has_the_keys_shapes_and_parameters_of_taming(name, vocab_size, block_size, parameters):
    size = size_named(name)
    with torch.device("meta"):
        gpt = GPT(vocab_size, block_size, size)
    expected = taming_shapes(vocab_size, block_size, size.layers, size.width, masks=False)
    assert {name: tuple(tensor.shape) for name, tensor in gpt.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in gpt.parameters()) == parameters


def test_an_unknown_size_is_told_with_the_nearest():
    with pytest.raises(InputError, match=r"^transformer size 'smal' is unknown; did you mean 'small'\?"):
        size_named("smal")


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match=r"^width 30 is not a multiple of 4 heads; the nearest is 32$"):
        GPT(8, 8, Size(1, 4, 30))


def test_weights_begin_small_and_biases_at_zero():
    torch.manual_seed(0)
    for name, parameter in GPT(1024, 512, SIZES["tiny"]).named_parameters():
        if name == "pos_emb" or name.endswith("bias"):
            assert torch.count_nonzero(parameter) == 0, name
        elif ".ln" in name or name.startswith("ln_f"):
            assert (parameter == 1).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
            assert abs(parameter.mean().item()) < 0.001, name


@pytest.mark.parametrize("n_unmasked", [0, 1, 5])
def test_a_state_dict_of_taming_loads_and_computes_what_it_says(n_unmasked):
    state, gpt = taming_state(n_unmasked), GPT(23, 16, SMALL, n_unmasked=n_unmasked).eval()
    load_taming_weights(gpt, state, SOURCE)
    indices = random_tokens()
    expected = twin_logits(state, indices, SMALL.heads, n_unmasked)
    assert (gpt(indices).double() - expected).abs().max() < 1e-4
    assert expected.abs().max() > 1


def test_a_state_dict_without_masks_loads_too():
    gpt, state = GPT(23, 16, SMALL), taming_state()
    load_taming_weights(gpt, {name: state[name] for name in state if "mask" not in name}, SOURCE)
    assert torch.equal(gpt.pos_emb, state["pos_emb"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.bias": torch.zeros(23)}, "checkpoint second.pt has 'head.bias', which this model lacks"),
        ({"blocks.3.attn.mask": torch.ones(1)}, "has 'blocks.3.attn.mask', which this model lacks"),
        ({"pos_emb": torch.zeros(1, 8, 32)}, r"'pos_emb' is \(1, 8, 32\) there and \(1, 16, 32\) here"),
        ({"ln_f.weight": None}, "checkpoint second.pt lacks 'ln_f.weight'"),
        (taming_state(5), "'blocks.0.attn.mask' is of block_size 16 and n_unmasked 5, this model of 16 and 0"),
    ],
    ids=["extra", "extra mask", "shape", "missing", "mask"],
)
def test_the_first_mismatch_is_named_and_nothing_is_loaded(change, message):
    gpt = make_gpt()
    before = {name: tensor.clone() for name, tensor in gpt.state_dict().items()}
    state = {name: tensor for name, tensor in (taming_state() | change).items() if tensor is not None}
    with pytest.raises(InputError, match=message) as caught:
        load_taming_weights(gpt, state, SOURCE)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in gpt.state_dict().items())


# ---- what a token sees


def test_a_later_token_changes_no_earlier_logits():
    gpt, indices = make_gpt(), random_tokens()
    changed = indices.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 23
    difference = (gpt(indices) - gpt(changed)).abs().amax((0, 2))
    assert difference[:9].max() == 0
    assert difference[9:].min() > 0


def test_the_unmasked_prefix_sees_itself_in_both_directions():
    gpt, indices = make_gpt(n_unmasked=5), random_tokens()
    for position, first_change in ((4, 0), (5, 5)):
        changed = indices.clone()
        changed[:, position] = (changed[:, position] + 1) % 23
        difference = (gpt(indices) - gpt(changed)).abs().amax((0, 2))
        assert (difference[:first_change] == 0).all()
        assert (difference[first_change:] > 0).all()


@pytest.mark.parametrize("n_unmasked", [0, 4])
@pytest.mark.parametrize("chunks", [[6] + [1] * 10, [16], [5, 4, 1, 6]], ids=str)
def test_logits_are_the_same_with_a_cache(n_unmasked, chunks):
    gpt, indices = make_gpt(n_unmasked=n_unmasked), random_tokens()
    cache = gpt.new_cache(3)
    parts = [gpt(part, cache) for part in indices.split(chunks, dim=1)]
    assert (torch.cat(parts, 1) - gpt(indices)).abs().max() < 1e-4
    assert cache.length == 16


@torch.no_grad()
def test_the_next_logits_are_the_last_ones():
    gpt, indices = make_gpt(), random_tokens()
    assert torch.allclose(gpt.next_logits(indices), gpt(indices)[:, -1], atol=1e-5)


@torch.no_grad()
def test_a_token_writes_its_own_place_of_the_cache_only():
    gpt, indices = make_gpt(), random_tokens()
    cache = gpt.new_cache(3, capacity=12)
    assert cache.keys.shape == cache.values.shape == (3, 3, 4, 12, 8)
    memory = (cache.keys.data_ptr(), cache.values.data_ptr())
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    gpt(indices[:, :7], cache)
    before = cache.keys.clone(), cache.values.clone()
    gpt(indices[:, 7:8], cache)
    assert (cache.keys.data_ptr(), cache.values.data_ptr()) == memory
    for now, then in zip((cache.keys, cache.values), before, strict=True):
        assert torch.equal(now[:, :, :, :7], then[:, :, :, :7])
        assert now[:, :, :, 7].isfinite().all()
        assert now[:, :, :, 8:].isnan().all()


@torch.no_grad()
def test_an_emptied_cache_knows_nothing_of_what_it_held():
    gpt, indices = make_gpt(), random_tokens()
    cache = gpt.new_cache(3)
    gpt(indices, cache)
    cache.length = 0
    assert (gpt(indices[:, 3:], cache) - gpt(indices[:, 3:])).abs().max() < 1e-4


@torch.no_grad()
def test_the_cache_follows_mixed_precision():
    gpt, indices = make_gpt(), random_tokens()
    with torch.autocast("cpu", torch.bfloat16):
        cache = gpt.new_cache(3)
        mixed = torch.cat([gpt(part, cache) for part in indices.split([6, 5, 1, 1, 1, 1, 1], 1)], 1)
        assert cache.keys.dtype == torch.bfloat16
        assert (mixed - gpt(indices)).abs().max() < 0.2
    assert (mixed - gpt(indices)).abs().max() < 0.5


def test_too_many_tokens_are_told_in_one_line():
    gpt = make_gpt()
    with pytest.raises(InputError, match=r"^17 tokens are too many for this transformer: its block_size is 16$"):
        gpt(random_tokens(length=17))
    with pytest.raises(InputError, match=r"^17 tokens are too many"):
        gpt.new_cache(1, capacity=17)
    with torch.no_grad(), pytest.raises(InputError, match=r"^6 tokens do not fit into a cache for 5$"):
        gpt(random_tokens(length=6), gpt.new_cache(3, capacity=5))


def test_a_cache_must_begin_with_the_whole_unmasked_prefix():
    gpt = make_gpt(n_unmasked=5)
    with (
        torch.no_grad(),
        pytest.raises(InputError, match=r"^a cache must begin with all 5 unmasked tokens, not with 3"),
    ):
        gpt(random_tokens(length=3), gpt.new_cache(3))


# ---- training


@pytest.mark.parametrize("dropout", ["embd_dropout", "resid_dropout", "attn_dropout"])
@torch.no_grad()
def test_each_dropout_drops_in_training_only(dropout):
    gpt, indices = make_gpt(**{dropout: 0.5}), random_tokens()
    assert torch.equal(gpt(indices), gpt(indices))
    assert torch.equal(gpt(indices), make_gpt()(indices))
    gpt.train()
    torch.manual_seed(0)
    assert (gpt(indices) - gpt(indices)).abs().max() > 0.01


def test_only_the_weights_of_linear_layers_decay():
    gpt = make_gpt()
    names = {parameter: name for name, parameter in gpt.named_parameters()}
    decayed, others = adamw(gpt, 1e-3).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert decayed["betas"] == others["betas"] == (0.9, 0.95)
    linear = (
        "key.weight",
        "query.weight",
        "value.weight",
        "proj.weight",
        "mlp.0.weight",
        "mlp.2.weight",
        "head.weight",
    )
    assert {names[p] for p in decayed["params"]} == {name for name in names.values() if name.endswith(linear)}
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_it_learns_to_repeat_its_prefix():
    torch.manual_seed(0)
    gpt = GPT(8, 8, Size(2, 4, 32))
    optimizer = adamw(gpt, 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        prefix = torch.randint(8, (32, 4), generator=generator)
        logits = gpt(torch.cat((prefix, prefix), 1)[:, :-1])[:, -4:]
        loss = F.cross_entropy(logits.flatten(0, 1), prefix.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prefix = torch.randint(8, (64, 4), generator=generator)
    copies = complete(gpt, prefix, prefix[:, :0], 4, DrawingSettings(greedy=True))
    assert (copies == prefix).float().mean() > 0.95
    assert F.cross_entropy(torch.zeros(1, 8), torch.tensor([0])) > 4 * loss
