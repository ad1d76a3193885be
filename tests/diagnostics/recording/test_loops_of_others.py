"""The instrument in training loops that it does not know: right numbers, or one line."""

import copy
import io
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from records import Records
from sequence_model import LEARNABLE, sequences, stranger
from torch import nn
from torch.utils.checkpoint import checkpoint

from vqtool.diagnostics import CodebookMonitor, CodebookReading, CodebookTrace, InputError
from vqtool.diagnostics.recording.jumps import Jumps


def watched(model, optimizer=None, **settings):
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)
    sink = Records()
    CodebookMonitor(model, optimizer, [sink], **{"every": 1} | settings)
    return optimizer, sink


def test_a_step_with_a_closure_is_recorded_with_its_own_tokens_and_gradients():
    model, plain = stranger(**LEARNABLE), stranger(**LEARNABLE)
    optimizer, sink = watched(model)
    other, expected = watched(plain)
    for x in sequences(4, 6, 8, 10, 12):

        def closure(x=x):
            optimizer.zero_grad()
            loss = model(x)
            loss.backward()
            return loss

        optimizer.step(closure)
        other.zero_grad()
        plain(x).backward()
        other.step()
    assert [record.hits.sum() for record in sink.records] == [4, 6, 8, 10, 12]
    for got, want in zip(sink.records, expected.records, strict=True):
        np.testing.assert_array_equal(got.grad_norm, want.grad_norm)
        np.testing.assert_array_equal(got.norm, want.norm)


@pytest.mark.parametrize("how", ["position", "keyword"])
def test_a_closure_that_is_evaluated_several_times_belongs_to_its_step(how):
    model = stranger(**LEARNABLE)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3, tolerance_grad=0, tolerance_change=0)
    _, sink = watched(model, optimizer)
    for x in sequences(4, 6):

        def closure(x=x):
            optimizer.zero_grad()
            loss = model(x)
            loss.backward()
            return loss

        optimizer.step(closure) if how == "position" else optimizer.step(closure=closure)
    assert [(record.step, record.hits.sum(), record.forwards) for record in sink.records] == [(1, 12, 3), (2, 18, 3)]


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_unscaled_whoever_divides_them(fused):
    model, plain = stranger(**LEARNABLE), stranger(**LEARNABLE)
    optimizer, sink = watched(model, torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused))
    other, expected = watched(plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for number, x in enumerate(sequences(8, 8, 8, 8), start=1):
        optimizer.zero_grad()
        scaler.scale(model(x)).backward()
        if number == 3:
            model.encoder.weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        other.zero_grad()
        plain(x).backward()
        if number != 3:
            other.step()
    assert [record.step for record in sink.records] == [1, 2, 3, 4]
    assert np.isnan(sink.records[2].grad_norm).all()  # no gradient was used in the skipped step
    used = [sink.records[0], sink.records[1], sink.records[3]]
    for got, want in zip(used, expected.records, strict=True):
        np.testing.assert_allclose(got.grad_norm, want.grad_norm, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_forward_counts_once_however_it_is_repeated(reentrant):
    model = stranger()
    optimizer, sink = watched(model)
    (x,) = sequences(8)
    checkpoint(model, x.requires_grad_(), use_reentrant=reentrant).backward()
    optimizer.step()
    assert sink.records[0].hits.sum() == 8
    assert sink.records[0].forwards == 1


def test_forwards_without_gradients_do_not_count_and_the_others_are_told():
    model = stranger()
    optimizer, sink = watched(model)
    one, two, three = sequences(4, 5, 6)
    with torch.no_grad():
        model(one)
    model(two).backward()
    model(three)  # a discriminator's turn
    optimizer.step()
    assert (sink.records[0].hits.sum(), sink.records[0].forwards) == (11, 2)


def test_a_copy_and_a_saved_model_are_not_watched_and_need_no_vqtool(tmp_path):
    model = stranger()
    optimizer, sink = watched(model)
    (x,) = sequences(8)
    copy.deepcopy(model).train()(x)
    torch.save(model, kept := io.BytesIO())
    kept.seek(0)
    torch.load(kept, weights_only=False)(x)
    model(x).backward()
    optimizer.step()
    assert sink.records[0].hits.sum() == 8
    torch.save(model, tmp_path / "model.pt")
    # Loaded where vqtool cannot be imported.
    code = (
        "import sys, torch; sys.modules['vqtool'] = None; sys.path.insert(0, sys.argv[2]);"
        "model = torch.load(sys.argv[1], weights_only=False); model(torch.randn(1, 8, 4)).backward()"
    )
    tests = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, tmp_path / "model.pt", tests], check=True)


def test_calls_by_keyword_and_models_in_double_are_read():
    model = stranger().double()
    optimizer, sink = watched(model)
    model.vq(x=model.encoder(sequences(8)[0].double()))[2].sum().backward()
    optimizer.step()
    assert sink.records[0].hits.sum() == 8


def wrong(what):
    model = stranger()
    optimizer = torch.optim.Adam(model.parameters())
    arguments = {"model": model, "optimizer": optimizer}
    return (
        arguments
        | {
            "every": {"every": 0},
            "path": {"sinks": "runs/mine"},
            "single": {"sinks": Records()},
            "name": {"optimizer": "adam"},
            "parameters": {"optimizer": model.parameters()},
            "none": {"optimizer": []},
            "other": {"optimizer": torch.optim.Adam(nn.Linear(2, 2).parameters())},
            "scaler": {"scaler": 1024.0},
            "on_error": {"on_error": "ignore"},
        }[what]
    )


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("every", "every should be a number of optimizer steps, 1 or more, got 0"),
        ("path", "sinks should be a list of sinks"),
        ("single", "sinks should be a list of sinks"),
        ("name", "optimizer should be a torch.optim.Optimizer or a list of them, got 'adam'"),
        ("parameters", "optimizer should be a torch.optim.Optimizer"),
        ("none", "optimizer is an empty list"),
        ("other", "the optimizer holds none of the parameters of Stranger"),
        ("scaler", "scaler should be a torch.amp.GradScaler"),
        ("on_error", "on_error 'ignore' is unknown"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line_before_training(what, told):
    with pytest.raises(InputError, match=told) as error:
        CodebookMonitor(**wrong(what))
    assert "\n" not in str(error.value)


def test_a_codebook_that_no_optimizer_holds_is_told_of():
    model = stranger(**LEARNABLE)
    optimizer = torch.optim.Adam(model.encoder.parameters())
    with pytest.warns(UserWarning, match="the codebook of vq requires a gradient but is in no optimizer"):
        CodebookMonitor(model, optimizer)
    both = [optimizer, torch.optim.SGD(model.vq.parameters(), lr=0.1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CodebookMonitor(model, both)


def test_what_a_wrapper_holds_is_unwrapped():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    plain = stranger()
    model, optimizer = accelerator.prepare(plain, torch.optim.Adam(plain.parameters()))
    _, sink = watched(model, optimizer)
    for x in sequences(4, 6):
        optimizer.zero_grad()
        accelerator.backward(model(x))
        optimizer.step()
    assert [(record.codebook, record.hits.sum()) for record in sink.records] == [("vq", 4), ("vq", 6)]


def losses_of_compiled(attach, left_out):
    torch._dynamo.reset()
    model = stranger()
    if left_out:
        model.vq.forward = torch.compiler.disable(model.vq.forward)
    optimizer, sink = torch.optim.Adam(model.parameters()), Records()
    if attach:
        CodebookMonitor(model, optimizer, [sink], every=1)
    compiled, losses = torch.compile(model, backend="aot_eager"), []
    for x in sequences(8, 8, 8):
        optimizer.zero_grad()
        (loss := compiled(x)).backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, sink.records


def test_a_quantizer_that_is_left_out_of_the_compiled_graph_is_read_and_nothing_changes():
    plain, _ = losses_of_compiled(attach=False, left_out=True)
    losses, records = losses_of_compiled(attach=True, left_out=True)
    assert losses == plain
    assert [record.hits.sum() for record in records] == [8, 8, 8]


def test_a_quantizer_inside_a_compiled_graph_is_not_recorded_as_dead_and_nothing_changes():
    plain, _ = losses_of_compiled(attach=False, left_out=False)
    with pytest.warns(UserWarning, match="no training forward of vq in 1 optimizer steps"):
        losses, records = losses_of_compiled(attach=True, left_out=False)
    assert losses == plain
    assert records == []


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_attaching_to_a_compiled_model_says_what_to_do(how):
    model = stranger()
    optimizer = torch.optim.Adam(model.parameters())
    compiled = torch.compile(model) if how == "wrapped" else model
    if how == "in place":
        model.compile()
    told = (
        r"leave it out with model\.vq\.forward = torch\.compiler\.disable\(model\.vq\.forward\) before torch\.compile"
    )
    with pytest.raises(InputError, match=told) as error:
        CodebookMonitor(compiled, optimizer)
    assert "\n" not in str(error.value)


def test_the_hook_leaves_a_full_graph_whole():
    torch._dynamo.reset()
    module = nn.Linear(4, 4)
    from vqtool.diagnostics.probes import Tap
    from vqtool.diagnostics.recording.hooks import watch

    seen = []
    watch(Tap(module), seen.append)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    compiled(torch.randn(2, 4))
    assert seen == []


def test_resets_inside_the_library_are_seen():
    model = stranger(threshold_ema_dead_code=1)
    optimizer, sink = watched(model)
    inner, replaced = model.vq._codebook, []
    original = inner.replace
    inner.replace = lambda samples, batch_mask, **rest: (
        replaced.append(batch_mask[0].clone()),
        original(samples, batch_mask=batch_mask, **rest),
    )
    for x in sequences(20, 20, 20, 20):
        replaced.clear()
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
        resets = sink.records[-1].resets
        if len(sink.records) == 1:  # what was before cannot be known
            assert np.isnan(resets[replaced[0]]).all()
            continue
        expected = replaced[0].float().numpy() if replaced else np.zeros(16)
        np.testing.assert_array_equal(resets, expected)
        assert expected.sum() > 0


def test_a_jump_that_nothing_explains_is_null_and_quiet_codes_are_zero():
    model = stranger(**LEARNABLE)
    optimizer, sink = watched(model)
    for number, x in enumerate(sequences(20, 20, 20), start=1):
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
        if number == 2:
            dead = int((sink.records[-1].hits == 0).argmax())
            model.vq._codebook.embed.data[0, dead] = 50.0
    assert np.isnan(sink.records[-1].resets[dead])
    others = np.delete(sink.records[-1].resets, dead)
    assert (others == 0).all()


def reset_onto_a_latent(tokens, row):
    """Train on sequences of so many tokens; after the second step a dead code takes the latent of its batch at row."""
    model = stranger(**LEARNABLE)
    optimizer, sink = watched(model)
    for number, x in enumerate(sequences(*tokens), start=1):
        latents = model.encoder(x).detach()
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
        if number == 2:
            dead = int((sink.records[-1].hits == 0).argmax())
            model.vq._codebook.embed.data[0, dead] = latents[0, row]
    return sink, dead


def test_a_remedy_after_the_step_that_takes_latents_of_the_batch_is_seen():
    sink, dead = reset_onto_a_latent((20, 20, 20), row=3)
    assert sink.records[-1].resets[dead] == 1
    assert np.nansum(sink.records[-1].resets) == 1


def test_a_monitor_on_one_rank_only_is_refused_at_once(tmp_path):
    script = Path(__file__).with_name("lone_monitor.py")
    began = time.monotonic()
    ranks = [
        subprocess.Popen([sys.executable, script, tmp_path, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    _, told = ranks[0].communicate(timeout=100)
    assert "InputError: no monitor is attached on rank 1: attach one on every rank" in told
    assert time.monotonic() - began < 60
    ranks[1].kill()
    ranks[1].communicate()


def test_a_run_that_forgets_to_close_leaves_its_last_window(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import torch
from sequence_model import sequences, stranger
from vqtool.diagnostics import CodebookMonitor, TraceSink
def main():
    model = stranger()
    optimizer = torch.optim.Adam(model.parameters())
    CodebookMonitor(model, optimizer, [TraceSink({str(tmp_path / "mine")!r})], every=2)
    for x in sequences(4, 5, 6):
        model(x).backward()
        optimizer.step()
    return model
model = main()
raise SystemExit(3)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 3
    trace = CodebookTrace.load(tmp_path / "mine" / "trace" / "vq")
    assert trace.steps.tolist() == [2, 3]
    assert trace.hits.sum(1).tolist() == [9, 6]


def test_a_reset_is_seen_in_a_batch_of_one_token():
    sink, dead = reset_onto_a_latent((20, 1, 1), row=0)
    assert sink.records[-1].resets[dead] == 1


def test_where_latents_are_not_compared_with_codes_resets_are_null():
    jumps, codes = Jumps(), torch.randn(16, 4)
    nowhere = CodebookReading(torch.arange(8), torch.full((8, 4), torch.nan), codes[:8])
    jumps.look(codes, nowhere)
    landed, elsewhere = jumps.look(codes + 1, nowhere)
    assert landed.sum() == 0
    assert elsewhere.all()


def test_a_dropped_token_is_no_hit_that_would_explain_a_jump():
    jumps, codes = Jumps(), torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    reading = CodebookReading(torch.tensor([-1, 5, 6, 7]), torch.randn(4, 4), codes[:4])
    jumps.look(codes, reading)
    moved = codes.clone()
    moved[0] += 50
    _, elsewhere = jumps.look(moved, reading)
    assert elsewhere.nonzero().flatten().tolist() == [0]
