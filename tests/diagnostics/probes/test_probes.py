"""Strangers: their numbers as computed by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from records import Records
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqtool.diagnostics import PROBES, CodebookMonitor, TraceSink, find_codebooks
from vqtool.vqgan.quantizers import QUANTIZERS

K, D = 16, 4

STRANGERS = {
    "ema": {},
    "cosine": {"use_cosine_sim": True},
    "learnable": {"learnable_codebook": True, "ema_update": False, "rotation_trick": False},
    "projected": {"codebook_dim": 3},
    "heads": {"heads": 2, "codebook_dim": 2},
    "threshold": {"threshold_ema_dead_code": 2},
}


class Stranger(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.encoder = nn.Linear(D, D)
        self.vq = VectorQuantize(dim=D, codebook_size=K, **settings)


def watch(model, every=1):
    sink = Records()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    CodebookMonitor(model, optimizer, [sink], every=every)
    return sink, optimizer


@pytest.mark.parametrize("name", STRANGERS)
def test_the_record_of_a_stranger_is_what_a_loop_counts(name):
    torch.manual_seed(0)
    model = Stranger(**STRANGERS[name])
    sink, optimizer = watch(model)
    inner = model.vq._codebook
    for batch in torch.randn(3, 2, 10, D):
        optimizer.zero_grad()
        latents = inner.transform_input(
            model.vq.maybe_split_heads_from_input(model.vq.project_in(model.encoder(batch)))
        )
        book = inner.embed.detach().clone()[0]
        quantized, indices, loss = model.vq(model.encoder(batch))
        (quantized.square().sum() + loss.sum()).backward()
        gradient = inner.embed.grad
        optimizer.step()

        z = latents.detach().reshape(-1, book.shape[1])
        if name == "heads":  # indices come as (B, N, heads), latents as (heads B N)
            indices = indices.permute(0, 2, 1)
        k = indices.flatten().tolist()
        hits, distortion, pull = np.zeros(K, int), np.zeros(K), torch.zeros_like(book)
        for token, code in zip(z, k, strict=True):
            hits[code] += 1
            distortion[code] += (token - book[code]).square().sum().item()
            pull[code] += 2 / z.numel() * (book[code] - token)
        record = sink.records[-1]
        np.testing.assert_array_equal(record.hits, hits)
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(record.distortion, distortion / hits, rtol=1e-4)
        np.testing.assert_allclose(record.pull_norm, pull.norm(dim=1), rtol=1e-4, atol=1e-8)
        if gradient is None:
            assert np.isnan(record.grad_norm).all()
        else:
            np.testing.assert_allclose(record.grad_norm, gradient[0].norm(dim=1), rtol=1e-5, atol=1e-9)


def test_image_maps_are_read_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, D, 1), VectorQuantize(dim=D, codebook_size=K, accept_image_fmap=True))
    sink, optimizer = watch(model)
    _, indices, loss = model(torch.randn(2, 3, 5, 5))
    loss.sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(sink.records[0].hits, np.bincount(indices.flatten(), minlength=K))
    assert sink.records[0].codebook == "1"


def test_padding_is_not_counted():
    torch.manual_seed(0)
    model = Stranger()
    sink, optimizer = watch(model)
    mask = torch.arange(10) < torch.tensor([[7], [3]])
    _, indices, loss = model.vq(model.encoder(torch.randn(2, 10, D)), mask=mask)
    loss.sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(sink.records[0].hits, np.bincount(indices[mask], minlength=K))
    assert sink.records[0].hits.sum() == 10


def test_an_in_place_codebook_optimizer_does_not_count_twice():
    torch.manual_seed(0)
    model = Stranger(
        learnable_codebook=True, ema_update=False, in_place_codebook_optimizer=lambda p: torch.optim.SGD(p, lr=0.1)
    )
    sink, optimizer = watch(model)
    model.vq(model.encoder(torch.randn(2, 10, D)))[2].sum().backward()
    optimizer.step()
    assert sink.records[0].hits.sum() == 20


def test_attaching_to_a_stranger_changes_nothing():
    def run(attach):
        torch.manual_seed(0)
        model = Stranger(threshold_ema_dead_code=2)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        if attach:
            CodebookMonitor(model, optimizer, [Records()], every=2)
        losses = []
        for batch in torch.randn(5, 2, 10, D):
            optimizer.zero_grad()
            quantized, _, loss = model.vq(model.encoder(batch))
            (total := quantized.square().sum() + loss.sum()).backward()
            optimizer.step()
            losses.append(total.item())
        return losses, torch.get_rng_state(), model.state_dict()

    (losses, random, state), (plain_losses, plain_random, plain_state) = run(True), run(False)
    assert losses == plain_losses
    assert torch.equal(random, plain_random)
    assert list(state) == list(plain_state)
    assert all(torch.equal(state[name], plain_state[name]) for name in state)


def test_every_quantizer_of_ours_is_read_by_the_probe_of_ours():
    for quantizer in QUANTIZERS.values():
        first = next(name for name, probe in PROBES.items() if probe.matches(quantizer(K, D)))
        assert first == "quantizer_output"
        assert list(find_codebooks(quantizer(K, D))) == ["codebook"]


def test_five_lines_leave_a_trace_that_pandas_reads(tmp_path):
    torch.manual_seed(0)
    model = Stranger()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitor = CodebookMonitor(model, optimizer, [TraceSink(tmp_path / "mine")], every=2)
    for batch in torch.randn(5, 2, 10, D):
        optimizer.zero_grad()
        quantized, _, loss = model.vq(model.encoder(batch))
        (quantized.square().sum() + loss.sum()).backward()
        optimizer.step()
    monitor.close()
    frame = pd.read_parquet(tmp_path / "mine" / "trace" / "vq")
    assert frame.groupby("step").hits.sum().to_dict() == {2: 40, 4: 40, 5: 20}
    assert frame.groupby("step").window.first().to_dict() == {2: 2, 4: 2, 5: 1}
