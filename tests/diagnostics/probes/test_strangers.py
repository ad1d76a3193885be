"""Every stranger: its numbers as computed by hand from what it says itself, and nothing of it changed by looking."""

import numpy as np
import pytest
import torch
from records import Records
from strangers import STRANGERS, Host, Stranger, Tokens, loss

from vqtool.diagnostics import CodebookMonitor, find_codebooks
from vqtool.diagnostics.probes import WatchedCodebook
from vqtool.diagnostics.recording.hooks import watch

READ = {name: stranger for name, stranger in STRANGERS.items() if stranger.refused is None}


def readings_of(codebooks: dict[str, WatchedCodebook]) -> tuple[dict[str, list], list]:
    """What is read of the codebooks from now on, by their names; and what takes the instrument away again."""
    readings, handles = {}, []
    for name, codebook in codebooks.items():

        def on_return(call, name=name, codebook=codebook, tap=0):
            with torch.no_grad():
                reading = codebook.read(tap, call)
            if reading is not None and codebook.module.training:
                readings.setdefault(name, []).append(reading)

        for number, tap in enumerate(codebook.taps):
            handles.append(watch(tap, lambda call, number=number, on_return=on_return: on_return(call, tap=number)))
    return readings, handles


def totals(tokens: list[Tokens], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits of each code, and the mean squared distance of the tokens that hit it, token by token."""
    hits, distortion = np.zeros(size, int), np.zeros(size)
    for call in tokens:
        kept = call.indices >= 0 if call.kept is None else call.kept & (call.indices >= 0)
        for index, z, q in zip(call.indices[kept].tolist(), call.latents[kept], call.codes[kept], strict=True):
            hits[index] += 1
            distortion[index] += (z.double() - q.double()).square().sum().item()
    with np.errstate(invalid="ignore"):
        return hits, distortion / hits


def as_tokens(reading) -> Tokens:
    return Tokens(reading.indices, reading.latents, reading.codes, reading.mask)


def spied(stranger: Stranger, model: Host) -> dict[str, list[Tokens]]:
    seen: dict[str, list[Tokens]] = {}
    stranger.spy(model.vq, lambda name, tokens: seen.setdefault(name, []).append(tokens))
    return seen


@pytest.mark.parametrize("name", READ)
def test_what_is_read_is_what_a_loop_counts(name):
    stranger = READ[name]
    model = stranger.host()
    seen, codebooks = spied(stranger, model), find_codebooks(model)
    readings, _ = readings_of(codebooks)
    sink, optimizer = Records(), torch.optim.SGD(model.parameters(), lr=1e-3)
    if all(codebook.codes() is not None for codebook in codebooks.values()):
        CodebookMonitor(model, optimizer, [sink], every=1)
    before: dict[str, torch.Tensor] = {}
    for batch in stranger.batches():
        seen.clear(), readings.clear(), sink.records.clear(), optimizer.zero_grad()
        loss(model(batch)).backward()
        tables = {codebook: table.clone() for codebook, table in stranger.tables(model.vq).items()}
        now = {codebook: codebooks[codebook].codes().clone() for codebook in tables}
        optimizer.step()
        assert seen
        assert readings.keys() == seen.keys()
        records = {record.codebook: record for record in sink.records}
        for codebook, tokens in seen.items():
            size = codebooks[codebook].size
            hits, distortion = totals(tokens, size)
            read_hits, read_distortion = totals([as_tokens(reading) for reading in readings[codebook]], size)
            np.testing.assert_array_equal(read_hits, hits)
            np.testing.assert_allclose(read_distortion, distortion, rtol=1e-4, atol=1e-6)
            if records:
                np.testing.assert_array_equal(records[codebook].hits, hits)
                np.testing.assert_allclose(records[codebook].distortion, distortion, rtol=1e-4, atol=1e-6)
        for codebook, table in tables.items():
            torch.testing.assert_close(now[codebook], table, rtol=1e-5, atol=1e-6)
            if records:
                np.testing.assert_allclose(records[codebook].norm, table.norm(dim=1), rtol=1e-4, atol=1e-6)
            if records and codebook in before:
                drift = (table - before[codebook]).norm(dim=1)
                np.testing.assert_allclose(records[codebook].drift, drift, rtol=1e-3, atol=1e-5)
        before = tables
    assert tables.keys() == {name for name, codebook in codebooks.items() if codebook.codes() is not None}
