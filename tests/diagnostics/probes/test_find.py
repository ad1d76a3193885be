"""What is found in a model, what is told of the rest, and what is left alone."""

import copy

import pytest
import torch
import transformers
from strangers import AUDIO, COPIES, LUCIDRAINS, STRANGERS, TABLES
from strangers.watching import readings_of
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqtool.diagnostics import PROBES, InputError, find_codebooks
from vqtool.diagnostics.probes import NotAQuantizerError, Reader

K, D = 16, 4


def tiny(kind: str) -> nn.Module:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    words = {"vocab_size": 16}
    configs = {
        "GPT2": {"n_embd": 8, "n_layer": 1, "n_head": 2, **words},
        "T5": {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, **words},
        "ViT": {**small, "image_size": 8, "patch_size": 4},
        "Llama": {**small, **words, "num_key_value_heads": 2},
        "Bert": {**small, **words},
    }
    config = getattr(transformers, f"{kind}Config")(**configs[kind])
    return getattr(transformers, f"{kind}Model")(config)


class Queue(nn.Module):
    """MoCo's negatives: a buffer of vectors and a pointer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.randn(D, K))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))


ORDINARY = {
    "linear": lambda: nn.Linear(D, K),
    "embedding": lambda: nn.Embedding(K, D),
    "embeddings": lambda: nn.Sequential(nn.Embedding(K, D), nn.Linear(D, K)),
    "bag": lambda: nn.EmbeddingBag(K, D),
    "attention": lambda: nn.MultiheadAttention(D, 2),
    "batch norm": lambda: nn.Sequential(nn.Conv2d(3, D, 1), nn.BatchNorm2d(D)),
    "lstm": lambda: nn.LSTM(D, D),
    "gru": lambda: nn.GRU(D, D),
    "parameters": lambda: nn.ParameterList([nn.Parameter(torch.zeros(K, D))]),
    "transformer": lambda: nn.Transformer(D, 2, 1, 1, 8),
    "queue": Queue,
    **{kind: lambda kind=kind: tiny(kind) for kind in ("GPT2", "Bert", "T5", "Llama", "ViT")},
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_modules_are_no_quantizers(name):
    model = ORDINARY[name]()
    assert not [
        path for path, module in model.named_modules() if any(probe.matches(module) for probe in PROBES.values())
    ]
    with pytest.raises(InputError, match="no quantizer recognised"):
        find_codebooks(model)


@pytest.mark.parametrize("name", STRANGERS)
def test_of_a_quantizer_only_the_quantizer_is_found(name):
    if STRANGERS[name].refused:
        return
    model = nn.Sequential(nn.Linear(D, D), STRANGERS[name].build(), nn.Linear(D, D))
    found = find_codebooks(model)
    assert found
    assert not found.unread
    assert all(path.partition(".")[0] == "1" for path in found)


class Wrapper(nn.Module):
    """Nothing but a wrapped embedding, as Emu3's quantizer is by its attributes."""

    def __init__(self, **more):
        super().__init__()
        self.embedding = nn.Embedding(K, D)
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, ids):
        return self.embedding(ids)


class Tied(nn.Module):
    """A language model with a temperature, and with as many logits as tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.head, self.temperature = nn.Embedding(K, D), nn.Linear(D, K), 1.0

    def forward(self, ids):
        return self.head(self.embed(ids))


@pytest.mark.parametrize("deceiver", [Wrapper, lambda: Wrapper(beta=0.9), Tied])
def test_what_looks_codes_up_drops_out_at_its_first_call(deceiver):
    model = deceiver()
    (codebook,) = find_codebooks(model).values()
    readings_of({"it": codebook})
    with pytest.raises(NotAQuantizerError, match="looks codes up"):
        model(torch.arange(K))


class Positions(nn.Module):
    """An embedding of positions, which is given latents and returns latents."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, D)

    def forward(self, x):
        return x + self.embedding(torch.arange(x.shape[1]))


def test_positions_drop_out_at_their_first_call():
    model = nn.ModuleDict({"positions": Positions(), "vq": VectorQuantize(dim=D, codebook_size=K)})
    found = find_codebooks(model)
    readings_of({"positions": found["positions"]})
    with pytest.raises(NotAQuantizerError, match="not explained by its 10 codes") as why:
        model["positions"](torch.randn(2, 10, D))
    found.drop("positions", str(why.value))
    assert list(found) == ["vq"]
    assert found.unread.keys() == {"positions"}


class Statistics(nn.Module):
    """A table with counts, and no way to quantize."""

    def __init__(self):
        super().__init__()
        self.register_buffer("embed", torch.randn(K, D))
        self.register_buffer("cluster_size", torch.ones(K))


class StrangeQuantizer(nn.Module):
    def forward(self, x):
        return x.round()


def test_what_only_looks_like_a_quantizer_is_told_of():
    model = nn.ModuleDict(
        {"vq": VectorQuantize(dim=D, codebook_size=K), "odd": StrangeQuantizer(), "table": Statistics()}
    )
    found = find_codebooks(model)
    assert list(found) == ["vq"]
    assert found.unread.keys() == {"odd", "table"}
    assert "Reader" in found.unread["odd"]
    assert "no forward" in found.unread["table"]
    assert "watched: vq, 16 codes" in str(found)
    assert "not watched: odd, StrangeQuantizer" in str(found)


def test_containers_of_what_is_watched_are_not_told_of():
    class VQModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.quantize = VectorQuantize(dim=D, codebook_size=K)

    assert not find_codebooks(VQModel()).unread


def test_where_nothing_can_be_read_the_candidates_are_named():
    with pytest.raises(InputError, match=r"odd: StrangeQuantizer.*Reader") as refusal:
        find_codebooks(nn.ModuleDict({"odd": StrangeQuantizer()}))
    assert "\n" not in str(refusal.value)


def test_names_drop_what_wrappers_put_in_front():
    model = nn.Sequential(nn.Linear(D, D), VectorQuantize(dim=D, codebook_size=K))
    assert list(find_codebooks(torch.compile(model, backend="eager"))) == ["1"]
    assert list(find_codebooks(nn.ModuleDict({"module": model}))) == ["1"]
    assert list(find_codebooks(nn.ModuleDict({"_forward_module": nn.ModuleDict({"module": model})}))) == ["1"]


def test_a_module_at_two_paths_is_watched_once():
    shared = VectorQuantize(dim=D, codebook_size=K)
    assert list(find_codebooks(nn.ModuleDict({"first": shared, "second": shared}))) == ["first"]


def test_sharded_parameters_are_refused():
    class FullyShardedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self._fsdp_wrapped_module = module

    with pytest.raises(InputError, match=r"sharded by FullyShardedDataParallel; .*ignored_modules"):
        find_codebooks(FullyShardedDataParallel(COPIES["taming"].build()))
    of_zero = COPIES["taming"].build()
    of_zero.embedding.weight.ds_id = 3
    with pytest.raises(InputError, match="ZeRO stage 3"):
        find_codebooks(of_zero)
    # Statistics are buffers, which every rank holds whole.
    assert find_codebooks(FullyShardedDataParallel(VectorQuantize(dim=D, codebook_size=K)))


def test_looking_at_mimi_caches_nothing():
    """Mimi divides its sums once and keeps the quotient: who asks for it before the weights are there spoils it."""
    model = AUDIO["transformers mimi"].host()
    weights = {name: torch.randn_like(value).abs() for name, value in model.state_dict().items()}
    batch = AUDIO["transformers mimi"].batches()[0]

    untouched, watched = copy.deepcopy(model), copy.deepcopy(model)
    untouched.load_state_dict(weights)
    codebooks = find_codebooks(watched)
    readings, _ = readings_of(codebooks)
    for codebook in codebooks.values():
        codebook.codes(), codebook.gradient(), codebook.parameters()
    watched.load_state_dict(weights)
    assert torch.equal(watched(batch), untouched(batch))
    layer = readings["vq.layers.0"][0]
    torch.testing.assert_close(layer.codes, codebooks["vq.layers.0"].codes()[layer.indices], rtol=0, atol=0)


def test_looking_asks_no_property():
    class Touchy(nn.Module):
        touched = 0

        @property
        def codebook(self):
            type(self).touched += 1
            return torch.zeros(K, D)

        embed = embedding = indices = codebook

    model = nn.ModuleDict({"touchy": Touchy(), "vq": VectorQuantize(dim=D, codebook_size=K)})
    find_codebooks(model)
    assert Touchy.touched == 0


def test_a_copy_of_a_watched_model_is_its_own():
    model = LUCIDRAINS["residual shared"].host()
    readings, _ = readings_of(find_codebooks(model))
    copied = copy.deepcopy(model)
    copied(LUCIDRAINS["residual shared"].batches()[0])
    assert not readings


def test_one_vqmodel_is_watched_where_it_quantizes():
    model = TABLES["diffusers model"].host()
    assert list(find_codebooks(model)) == ["vq.quantize"]


def reading_of(module: nn.Module, x: torch.Tensor):
    readings, _ = readings_of(find_codebooks(module))
    module(x)
    return readings


class Table(nn.Module):
    """A quantizer by its attributes, whose output is what a test says."""

    def __init__(self, answer):
        super().__init__()
        self.beta, self.embedding, self._answer = 0.25, nn.Embedding(K, D), answer

    def forward(self, z):
        return self._answer(z, self.embedding)


def rounded(z, embedding):
    ids = torch.cdist(z.reshape(-1, D), embedding.weight).argmin(1)
    return embedding(ids).reshape(z.shape), ids


WRONG = {
    "float indices": (lambda z, table: (z * 2, rounded(z, table)[1].float()), "not explained"),
    "codes out of range": (lambda z, table: (z * 2, rounded(z, table)[1] + K), "not explained"),
    "projected codes": (lambda z, table: (rounded(z, table)[0] * 3 + 1 + z, rounded(z, table)[1]), "not explained"),
    "other indices": (lambda z, table: (z * 2, rounded(z, table)[1].flip(0)), "not explained"),
    "neither": (lambda z, table: z.mean(), "neither quantized latents"),
    "too few": (lambda z, table: (z.mean(), rounded(z, table)[1][:3]), "neither quantized latents"),
    "not the nearest": (lambda z, table: (rounded(z, table)[1] + 1) % K, "not explained"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_table_whose_output_does_not_fit_is_refused_in_one_line(name):
    answer, why = WRONG[name]
    torch.manual_seed(0)
    with pytest.raises(InputError, match=why) as refusal:
        reading_of(Table(answer), torch.randn(2, 10, D))
    assert "Reader" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_latents_without_the_channels_of_the_codes_are_refused():
    with pytest.raises(InputError, match="none of whose axes has the 4 channels"):
        reading_of(Table(lambda z, table: z), torch.randn(2, 10, 5))


def by_hand(**changes) -> Reader:
    """A reader of ``Table(rounded)`` with some of its functions changed."""
    functions = {
        "latents": lambda call: call.args[0],
        "indices": lambda call: call.output[1],
        "codebook": lambda module: module.embedding.weight,
        "quantized": lambda call: call.output[0],
    }
    return Reader(**{**functions, **changes})


def read_by(reader: Reader, module: nn.Module | None = None) -> dict:
    torch.manual_seed(0)
    model = nn.ModuleDict({"odd": module or Table(rounded)})
    readings, _ = readings_of(find_codebooks(model, read={"odd": reader}))
    model["odd"](torch.randn(2, 10, D))
    return readings


@pytest.mark.parametrize("reader", [by_hand(), by_hand(quantized=None)], ids=["verified", "looked up"])
def test_a_reader_reads_what_no_probe_knows(reader):
    (reading,) = read_by(reader)["odd"]
    assert reading.latents.shape == reading.codes.shape == (20, D)
    distances = (reading.latents - reading.codes).norm(dim=1)
    torch.manual_seed(0)
    table = Table(rounded).embedding.weight
    torch.testing.assert_close(distances, torch.cdist(reading.latents, table).min(1).values)


def test_a_reader_watches_a_method():
    class Elsewhere(Table):
        def encode_images(self, z):
            return rounded(z, self.embedding)

        def forward(self, z):
            return self.encode_images(z)[0]

    (reading,) = read_by(by_hand(method="encode_images"), Elsewhere(None))["odd"]
    assert len(reading.indices) == 20


def test_dropped_tokens_may_be_negative():
    def dropping(call):
        return call.output[1].where(torch.arange(20) > 4, -1)

    (reading,) = read_by(by_hand(indices=dropping))["odd"]
    assert (reading.indices < 0).sum() == 5


REFUSED = {
    "float indices": ({"indices": lambda call: call.output[1].float()}, "indices are torch.float32, not integers"),
    "too few": ({"indices": lambda call: call.output[1][:7]}, "7 indices for 20 tokens"),
    "no tensor": ({"indices": lambda call: None}, "indices are NoneType"),
    "out of range": ({"indices": lambda call: call.output[1] + K}, "in a codebook of 16 codes"),
    "other channels": ({"codebook": lambda module: torch.randn(K, D + 1)}, "latents of 4 channels and codes of 5"),
    "no table": ({"codebook": lambda module: torch.randn(K)}, r"codebook torch.float32 \(16,\), not a tensor"),
    "integer latents": ({"latents": lambda call: call.output[1]}, "gives as latents torch.int64"),
    "another table": ({"codebook": lambda module: module.embedding.weight * 3}, "not the rows of its codebook"),
    "other shape": ({"quantized": lambda call: call.output[0][:1]}, "40 numbers as quantized and 80 as latents"),
    "no method": ({"method": "quantise"}, "'quantise', which Table does not have"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_reader_is_verified_like_a_guess(name):
    changes, why = REFUSED[name]
    with pytest.raises(InputError, match=why) as refusal:
        read_by(by_hand(**changes))
    assert "\n" not in str(refusal.value)


def test_no_tokens_are_refused():
    torch.manual_seed(0)
    model = Table(rounded)
    readings_of(find_codebooks(model, read={"": by_hand()}))
    with pytest.raises(InputError, match="no tokens"):
        model(torch.randn(0, D))


def test_a_path_that_does_not_exist_names_the_nearest():
    with pytest.raises(InputError, match=r"module 'quantiser' is unknown; did you mean 'quantizer'\?"):
        find_codebooks(nn.ModuleDict({"quantizer": StrangeQuantizer()}), read={"quantiser": by_hand()})


def test_a_reader_takes_the_place_of_a_probe():
    model = nn.ModuleDict({"odd": Table(rounded)})
    assert list(find_codebooks(model, read={"module.odd": by_hand()})) == ["odd"]
    assert list(find_codebooks(model["odd"], read={"": by_hand()})) == ["codebook"]
