"""A trained model's codebooks over a data set: the numbers of a loop, and the model as it was."""

import numpy as np
import pytest
import torch
from records import Records
from sequence_model import K, sequences, stranger
from torch import nn

from vqtool.diagnostics import CodebookTrace, InputError, TraceSink, measure_codebooks, stats
from vqtool.diagnostics.recording.tables import read_table


def counted(model, batches):
    hits = np.zeros(K, int)
    with torch.no_grad():
        for x in batches:
            hits += np.bincount(model.vq(model.encoder(x))[1].flatten(), minlength=K)
    return hits


def test_a_pass_over_the_data_is_what_a_loop_counts():
    model, batches = stranger().eval(), sequences(30, 40, 50)
    hits = counted(model, batches)
    (measured,) = measure_codebooks(model, batches).values()
    np.testing.assert_array_equal(measured.record.hits, hits)
    assert measured.tokens == 120
    assert measured.usage == (hits > 0).mean()
    assert measured.perplexity == pytest.approx(float(stats.perplexity(hits)))
    assert measured.ceiling == pytest.approx(1 - (1 - 1 / K) ** 120)
    used, share, ceiling = (hits > 0).sum(), 100 * (hits > 0).mean(), 100 * measured.ceiling
    assert str(measured).startswith(
        f"vq: {share:.1f} % of a {ceiling:.1f} % ceiling ({used} of 16 codes used by 120 tokens, the whole pass);"
        f" coverage {100 * measured.statistics.coverage:.1f} %; perplexity {measured.perplexity:.1f}, corrected "
    )
    assert "95 %" not in str(measured)  # three batches are too few


def test_intervals_are_over_batches_which_are_counted_one_by_one():
    model, batches = stranger().eval(), sequences(*[30] * 12)
    (measured,) = measure_codebooks(model, batches).values()
    groups = measured.batches
    assert groups.sizes.sum() == 12
    assert groups.hits.sum(0).tolist() == measured.record.hits.tolist()
    for group, batch in enumerate(batches):
        assert groups.hits[group].tolist() == counted(model, [batch]).tolist()
        assert groups.images[group].tolist() == (counted(model, [batch]) > 0).tolist()
    assert "95 % over 12 batches: perplexity " in str(measured)


def test_a_model_in_training_mode_is_measured_in_evaluation_mode_and_left_as_it_was():
    model, batches = stranger(), sequences(30, 40)
    model.vq.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = {name: module.training for name, module in model.named_modules()}
    random = torch.get_rng_state()
    measure_codebooks(model, batches)
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_pass_leaves_a_run_that_can_be_read_like_any_other(tmp_path):
    model, batches = stranger(), sequences(30, 40)
    measured = measure_codebooks(model, batches, [TraceSink(tmp_path / "measured")])["vq"]
    trace = CodebookTrace.load(tmp_path / "measured" / "trace" / "vq")
    assert trace.hits.tolist() == [measured.record.hits.tolist()]
    assert trace.window.tolist() == [2]  # batches
    latents = read_table(tmp_path / "measured" / "latents" / "vq")
    assert latents.tokens.tolist() == [70]
    assert len(read_table(tmp_path / "measured" / "geometry" / "vq")) == 1


def test_the_model_is_run_as_its_user_says():
    model, batches = stranger(), [(x, 0) for x in sequences(30)]
    with pytest.raises(TypeError):
        measure_codebooks(model, batches)
    assert not any(module._forward_hooks for module in model.modules())
    (measured,) = measure_codebooks(model, batches, forward=lambda batch: model(batch[0])).values()
    assert measured.tokens == 30


def test_a_pass_that_reaches_no_quantizer_says_what_to_pass():
    model = stranger()
    with pytest.raises(InputError, match="no batch reached vq: pass forward=") as error:
        measure_codebooks(model, sequences(4), [Records()], forward=model.encoder)
    assert "\n" not in str(error.value)


def test_layers_and_implicit_codebooks_are_measured_each_for_itself():
    from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ

    torch.manual_seed(0)
    x = torch.randn(1, 50, 4)
    layers = measure_codebooks(nn.Sequential(ResidualVQ(dim=4, codebook_size=8, num_quantizers=3)), [x])
    assert list(layers) == ["0.layers.0", "0.layers.1", "0.layers.2"]
    assert all(measured.tokens == 50 for measured in layers.values())
    levels = nn.Sequential(FSQ([8, 5, 5, 5]))
    with torch.no_grad():
        indices = levels(x)[1].flatten()
    (measured,) = measure_codebooks(levels, [x]).values()
    assert measured.codes == 1000
    assert measured.codes_used == len(indices.unique())
    assert sum(measured.digits.hits) == 4 * 50
    torch.manual_seed(0)
    many = nn.Sequential(LFQ(codebook_size=2**20, dim=20))
    (measured,) = measure_codebooks(many, [torch.randn(1, 500, 20)]).values()
    assert measured.record is None
    assert measured.tokens == 500
    assert measured.codes_used == pytest.approx(500, abs=5)
    assert np.isnan(measured.perplexity)
