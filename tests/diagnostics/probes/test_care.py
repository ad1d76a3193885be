"""What the probes mind: they keep nothing of a call, run nothing of the model, and know what moves and what caches."""

import pytest
import torch
from strangers import COPIES, LEVELLED, STRANGERS, TABLES
from strangers.base import flat
from strangers.watching import readings_of
from torch import Tensor, nn
from vector_quantize_pytorch import SimVQ

from vqtool.diagnostics import find_codebooks
from vqtool.diagnostics.probes import Call

READ = {name: stranger for name, stranger in STRANGERS.items() if stranger.refused is None}


def held(thing: object, seen: set[int]) -> list[object]:
    """The calls, and the tensors with a graph, that an object of ours holds, however deep."""
    if id(thing) in seen or isinstance(thing, nn.Module):
        return []
    seen.add(id(thing))
    if isinstance(thing, Call) or (isinstance(thing, Tensor) and thing.grad_fn is not None):
        return [thing]
    if isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, list | tuple):
        parts = list(thing)
    elif callable(thing) and hasattr(thing, "__self__"):
        parts = [thing.__self__]
    else:
        parts = list(vars(thing).values()) if type(thing).__module__.startswith("vqtool") else []
    return [found for part in parts for found in held(part, seen)]


@pytest.mark.parametrize("name", READ)
def test_nothing_of_a_call_is_kept(name):
    model = READ[name].host()
    codebooks = find_codebooks(model)
    readings_of(codebooks)
    model(READ[name].batches()[0])
    assert not held(list(codebooks.values()), set())


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return super().forward(x)


def test_a_reading_runs_no_network_of_the_model():
    model = SimVQ(dim=4, codebook_size=16, codebook_transform=Counting(4, 4))
    readings, _ = readings_of(find_codebooks(model))
    Counting.calls = 0
    model(torch.randn(2, 10, 4, requires_grad=True))
    model(torch.randn(2, 10, 4, requires_grad=True))
    assert len(readings["codebook"]) == Counting.calls == 2


def test_codes_by_a_network_leave_its_state_and_random_numbers():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model = SimVQ(dim=4, codebook_size=16, codebook_transform=network)
    (codebook,) = find_codebooks(model).values()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    assert codebook.codes().shape == (16, 4)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_learned_levels_are_read_where_the_librarys_own_indices_go_wrong():
    model = LEVELLED["latent quantize"].host()
    with torch.no_grad():
        for values in model.vq.values_per_latent:
            values.mul_(3)
    (codebook,) = find_codebooks(model).values()
    readings, _ = readings_of({"vq": codebook})
    output = model(LEVELLED["latent quantize"].batches()[0] * 4)
    (reading,) = readings["vq"]
    assert output[1].min() < 0 or output[1].max() >= 60
    assert reading.indices.min() >= 0
    assert reading.indices.max() < 60
    torch.testing.assert_close(codebook.codes()[reading.indices], reading.codes, rtol=0, atol=0)
    nearest = torch.cdist(reading.latents, codebook.codes(), p=1).argmin(1)
    assert torch.equal(reading.indices, nearest)


def test_a_cache_of_codes_is_not_taken_for_the_codes():
    """Moshi keeps the quotient of sums and counts in a buffer, which is gone after the next step."""
    model = COPIES["moshi"].host()
    batches = COPIES["moshi"].batches()
    model.eval()(batches[0])
    assert model.vq._codebook._embedding is not None
    (codebook,) = find_codebooks(model.train()).values()
    readings_of({"vq": codebook})
    model(batches[1])
    assert model.vq._codebook._embedding is None
    torch.testing.assert_close(codebook.codes(), COPIES["moshi"].tables(model.vq)["vq"])


@pytest.mark.parametrize("stranger", [TABLES["glm"], COPIES["llamagen"]], ids=["glm", "llamagen"])
def test_latents_that_are_normalised_inside_enter_as_they_are(stranger):
    """Their end is before the normalisation, where the gradient of the cosine estimator arrives."""
    model, batch = stranger.host(), stranger.batches()[0]
    readings, _ = readings_of(find_codebooks(model))
    model(batch)
    (reading,) = readings["vq"]
    outside = reading.entering.tokens(reading.entering.tensor.detach())
    torch.testing.assert_close(outside, flat(batch, 1))
    torch.testing.assert_close(reading.latents, torch.nn.functional.normalize(outside, dim=1))


def test_janus_is_read_as_its_forward_uses_its_codes():
    """Its forward hands raw rows to the decoder; its ``get_codebook_entry`` hands unit rows to it."""
    model = TABLES["janus"].host()
    readings, _ = readings_of(find_codebooks(model))
    quantized = model(TABLES["janus"].batches()[0])[0]
    torch.testing.assert_close(readings["vq"][0].codes, flat(quantized, 1))


def test_a_dropped_layer_is_not_read():
    stranger = STRANGERS["lucidrains residual dropout"]
    model = stranger.host()
    readings, _ = readings_of(find_codebooks(model))
    for batch in stranger.batches(8):
        readings.clear()
        indices = model(batch)[1]
        dropped = {number for number in range(3) if (indices[..., number] < 0).all()}
        assert {f"vq.layers.{number}" for number in range(3) if number not in dropped} == readings.keys()


def test_decoding_alone_is_not_read():
    model = TABLES["residual dac"].host()
    codebooks = find_codebooks(model)
    readings, _ = readings_of(codebooks)
    codes = model(TABLES["residual dac"].batches()[0])[1]
    readings.clear()
    model.vq.from_codes(codes)
    assert not readings
    assert not held(list(codebooks.values()), set())
