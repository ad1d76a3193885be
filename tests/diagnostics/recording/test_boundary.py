"""What happens at the boundary: the estimator and the commitment weight come out of the gradients alone."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from records import Records
from sequence_model import D, Stranger, sequences
from torch import Tensor, nn

from vqtool.diagnostics import CodebookMonitor
from vqtool.diagnostics.probes import Reader
from vqtool.vqgan.quantizers import QUANTIZERS


class Ours(nn.Module):
    """One of our quantizers between two convolutions; its forward is the loss."""

    def __init__(self, name="standard", **settings):
        super().__init__()
        self.encoder = nn.Conv2d(3, D, 1)
        self.vq = QUANTIZERS[name](16, D, **settings)
        self.decoder = nn.Conv2d(D, 3, 1)

    def forward(self, images):
        output = self.vq(self.encoder(images))
        return F.mse_loss(self.decoder(output.quantized), images) + output.loss


class Custom(nn.Module):
    """A quantizer written out, which no probe knows; its forward is the loss."""

    def __init__(self, estimator="straight-through", beta=0.25):
        super().__init__()
        self.encoder, self.decoder, self.vq = nn.Linear(D, D), nn.Linear(D, D), CustomQuantizer(estimator)
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        out, q, _ = self.vq(z)
        loss = F.mse_loss(q, z.detach()) + self.beta * F.mse_loss(z, q.detach())
        return F.mse_loss(self.decoder(out), x) + loss


class CustomQuantizer(nn.Module):
    def __init__(self, estimator):
        super().__init__()
        self.table, self.estimator = nn.Embedding(16, D), estimator

    def forward(self, z):
        flat = z.reshape(-1, D)
        indices = torch.cdist(flat.detach().float(), self.table.weight.detach().float()).argmin(1)
        q = self.table(indices).view_as(z)
        out = q.detach() if self.estimator == "missing" else z + (q - z).detach()
        return out, q, indices


READ = {
    "vq": Reader(
        latents=lambda call: call.args[0],
        indices=lambda call: call.output[2],
        codebook=lambda module: module.table.weight,
        quantized=lambda call: call.output[0],
    )
}


def rows_of(model, batches, *, steps=3, scale=None, wrong=None, read=None, **settings):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sink = Records()
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    CodebookMonitor(model, optimizer, [sink], every=steps, read=read, **settings)
    for number, x in enumerate(batches[:steps]):
        optimizer.zero_grad()
        scaler.scale(model(x)).backward()
        scaler.step(optimizer)
        scaler.update(None if scale is None or number else 2 * scale)
    return sink.table("boundary")


def images(count):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, 4, 4, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("name", ["standard", "ema"])
@pytest.mark.parametrize("beta", [0.25, 1.0, 0.0])
def test_our_commitment_weight_is_recovered(name, beta):
    torch.manual_seed(0)
    rows = rows_of(Ours(name, commitment_weight=beta), images(3))
    assert [row.step for row in rows] == [1, 2, 3]
    for row in rows:
        assert row.estimator == "straight-through"
        assert row.straight_through_r2 > 1 - 1e-9
        assert row.gain == pytest.approx(1, abs=1e-6)
        assert row.commitment == pytest.approx(beta, abs=1e-7)


@pytest.mark.parametrize(("settings", "estimator"), [({}, "rotation"), ({"rotation_trick": False}, "straight-through")])
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_the_commitment_weight_and_the_estimator_of_a_stranger_are_recovered(settings, estimator, weight):
    torch.manual_seed(0)
    rows = rows_of(Stranger(commitment_weight=weight, **settings), sequences(40, 40, 40))
    for row in rows:
        assert row.estimator == estimator
        assert row.commitment == pytest.approx(weight, abs=2e-7)


def test_norms_ratio_and_cosine_are_those_of_the_gradients():
    torch.manual_seed(0)
    model, (x,) = Ours(), images(1)
    (row,) = rows_of(model, [x], steps=1)
    torch.manual_seed(0)
    twin = Ours()
    z = twin.encoder(x)
    output = twin.vq(z)
    loss = F.mse_loss(twin.decoder(output.quantized), x) + output.loss
    g_z, g_q = torch.autograd.grad(loss, [z, output.quantized])
    assert row.tokens == 64
    assert row.decoder_grad_norm == pytest.approx(g_q.norm().item(), rel=1e-5)
    assert row.encoder_grad_norm == pytest.approx(g_z.norm().item(), rel=1e-5)
    assert row.difference_norm == pytest.approx((g_z - g_q).norm().item(), rel=1e-4)
    assert row.ratio == pytest.approx((g_z.norm() / g_q.norm()).item(), rel=1e-5)
    assert row.cosine == pytest.approx(F.cosine_similarity(g_z.flatten(), g_q.flatten(), 0).item(), rel=1e-5)
    assert row.commitment_grad_norm == pytest.approx((g_z - g_q).norm().item(), rel=1e-4)


def test_a_scale_that_doubles_in_mid_run_changes_nothing_but_the_scale():
    def rows(scale):
        torch.manual_seed(0)
        return rows_of(Ours(), images(3), scale=scale)

    plain, scaled = rows(None), rows(512.0)
    assert [row.loss_scale for row in plain] == [1, 1, 1]
    assert [row.loss_scale for row in scaled] == [512, 1024, 1024]
    for a, b in zip(plain, scaled, strict=True):
        for name in ("decoder_grad_norm", "encoder_grad_norm", "difference_norm", "ratio", "cosine", "pull"):
            assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-4), name


def test_where_the_scale_cannot_be_known_only_what_does_not_depend_on_it_is_kept():
    """Half precision without a gradient scaler in sight: somebody multiplies the loss by hand."""
    torch.manual_seed(0)
    model, sink = Custom().half(), Records()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    CodebookMonitor(model, optimizer, [sink], every=1, read=READ)
    (64 * model(sequences(40)[0].half())).backward()
    optimizer.step()
    (row,) = sink.table("boundary")
    assert row.decoder_grad_norm is row.encoder_grad_norm is row.pull is row.loss_scale is None
    assert row.ratio > 0
    assert row.cosine > 0


@pytest.mark.parametrize(
    ("estimator", "named", "gain"), [("straight-through", "straight-through", 1), ("missing", "none", 0)]
)
def test_a_missing_estimator_shows(estimator, named, gain):
    torch.manual_seed(0)
    for row in rows_of(Custom(estimator), sequences(40, 40, 40), read=READ):
        assert row.estimator == named
        assert row.gain == pytest.approx(gain, abs=1e-6)
        assert row.commitment == pytest.approx(0.25, abs=1e-6)


class ChannelsFirst(Custom):
    """The same with images of latents, which its Reader has to turn round; a part of a larger tensor, as in a chunk."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x).unflatten(1, (4, -1)).permute(0, 3, 1, 2)
        z = torch.cat([z, z], 2).chunk(2, 2)[1]
        out, q, _ = self.vq(z)
        loss = F.mse_loss(q, z.detach().movedim(1, -1)) + self.beta * F.mse_loss(z, q.movedim(-1, 1).detach())
        return F.mse_loss(self.decoder(out.permute(0, 2, 3, 1)), x.unflatten(1, (4, -1))) + loss


class ChannelsFirstQuantizer(CustomQuantizer):
    def forward(self, z):
        out, q, indices = super().forward(z.permute(0, 2, 3, 1))
        return out.permute(0, 3, 1, 2).contiguous(), q, indices


@pytest.mark.parametrize(("estimator", "gain"), [("straight-through", 1), ("missing", 0)])
def test_a_reader_may_turn_the_axes_round(estimator, gain):
    torch.manual_seed(0)
    model = ChannelsFirst(estimator)
    model.vq = ChannelsFirstQuantizer(estimator)
    reader = Reader(
        latents=lambda call: call.args[0].permute(0, 2, 3, 1),
        indices=lambda call: call.output[2],
        codebook=lambda module: module.table.weight,
        quantized=lambda call: call.output[0].permute(0, 2, 3, 1),
    )
    rows = rows_of(model, sequences(40, 40, 40), read={"vq": reader})
    assert [row.step for row in rows] == [1, 2, 3]
    for row in rows:
        assert row.estimator == ("straight-through" if gain else "none")
        assert row.gain == pytest.approx(gain, abs=1e-6)
        assert row.commitment == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("which", ["latents", "quantized"])
def test_of_a_copy_that_a_reader_makes_nothing_is_said(which):
    torch.manual_seed(0)
    copied = replace(READ["vq"], **{which: lambda call: getattr(READ["vq"], which)(call).clone()})
    assert rows_of(Custom(), sequences(40, 40, 40), read={"vq": copied}) == []


def test_layers_whose_latents_feed_other_layers_are_not_misnamed():
    torch.manual_seed(0)
    from vector_quantize_pytorch import ResidualVQ

    model = Stranger()
    model.vq = ResidualVQ(dim=D, codebook_size=16, num_quantizers=3)
    optimizer, sink = torch.optim.Adam(model.parameters()), Records()
    CodebookMonitor(model, optimizer, [sink], every=1)
    quantized, _, losses = model.vq(model.encoder(sequences(40)[0]))
    (model.decoder(quantized).square().mean() + losses.sum()).backward()
    optimizer.step()
    assert {row.codebook: row.estimator for row in sink.table("boundary")} == {
        "vq.layers.0": None,
        "vq.layers.1": None,
        "vq.layers.2": "rotation",
    }


def test_micro_batches_add_up_to_the_whole_batch():
    def row(micro):
        torch.manual_seed(0)
        model, sink = Ours(), Records()
        optimizer = torch.optim.Adam(model.parameters())
        CodebookMonitor(model, optimizer, [sink], every=1)
        for part in images(1)[0].chunk(micro):
            (model(part) / micro).backward()
        optimizer.step()
        return sink.table("boundary")[0]

    whole, split = row(1), row(2)
    assert split.tokens == whole.tokens
    for name in ("decoder_grad_norm", "encoder_grad_norm", "commitment", "pull", "ratio"):
        assert getattr(split, name) == pytest.approx(getattr(whole, name), rel=1e-5), name


def test_the_boundary_is_looked_at_early_and_then_now_and_then():
    torch.manual_seed(0)
    steps = [row.step for row in rows_of(Ours(), images(25), steps=25)]
    assert steps == [1, 2, 3, 4, 10, 20]


def test_who_wants_the_counters_alone_gets_them():
    torch.manual_seed(0)
    model, sink = Ours(), Records()
    optimizer = torch.optim.Adam(model.parameters())
    CodebookMonitor(model, optimizer, [sink], every=1, detail=None)
    model(images(1)[0]).backward()
    optimizer.step()
    assert sink.records
    assert not sink.rows
    assert not sink.snapshots


def moved(model, batches, after=None):
    optimizer, sink = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.0), Records()
    CodebookMonitor(model, optimizer, [sink], every=1)
    books = []
    for x in batches:
        books.append(model.vq.codebook.detach().clone())
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
        model.vq.end_step()
    return sink, [*books, model.vq.codebook.detach().clone()]


def test_movement_is_what_a_step_did_to_the_codes():
    torch.manual_seed(0)
    sink, books = moved(Ours(), images(4))
    steps = {row.step: row for row in sink.table("movement")}
    assert sorted(steps) == [2, 3, 4]
    for step, (before, now) in enumerate(pairwise(books), start=1):
        if step == 1:
            continue
        lengths = (now - before).norm(dim=1)
        used = torch.as_tensor(sink.records[step - 1].hits) > 0
        row = steps[step]
        assert row.moved_mean == pytest.approx(lengths.mean().item(), rel=1e-5)
        assert row.moved_median_used == pytest.approx(lengths[used].median().item(), rel=1e-5)
        assert row.moved_max == pytest.approx(lengths.max().item(), rel=1e-5)
        assert row.moved_share == pytest.approx((lengths > 0).float().mean().item())
        assert row.grad_share == pytest.approx(used.float().mean().item())
        assert (row.in_optimizer, row.lr, row.weight_decay) == (True, 0.5, 0.0)
        assert row.attraction_r2 > 0.5


def test_moving_averages_are_attracted_without_an_optimizer():
    torch.manual_seed(0)
    model = Ours("ema", decay=0.9)
    (x,) = images(1)
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(False)
    optimizer, sink = torch.optim.SGD(model.decoder.parameters(), lr=0.0), Records()
    CodebookMonitor(model, optimizer, [sink], every=1)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
        model.vq.end_step()
    (row,) = sink.table("movement")
    assert row.in_optimizer is False
    assert row.grad_share is None
    assert 0.02 < row.attraction < 1


def test_the_latents_of_a_window_are_summed_up():
    torch.manual_seed(0)
    model, kept = Ours(), []
    model.encoder.register_forward_hook(lambda _, args, output: kept.append(output.detach()))
    optimizer, sink = torch.optim.Adam(model.parameters()), Records()
    CodebookMonitor(model, optimizer, [sink], every=3)
    for x in images(3):
        model(x).backward()
        optimizer.step()
    z = torch.cat([each.permute(0, 2, 3, 1).reshape(-1, D) for each in kept])
    (row,) = sink.table("latents")
    assert (row.step, row.window, row.forwards, row.tokens) == (3, 3, 3, 192)
    assert row.mean_norm == pytest.approx(z.norm(dim=1).mean().item(), rel=1e-5)
    assert row.centre_norm == pytest.approx(z.mean(0).norm().item(), rel=1e-5)
    assert row.spread == pytest.approx((z - z.mean(0)).square().sum(1).mean().sqrt().item(), rel=1e-5)
    torch.testing.assert_close(torch.tensor(row.mean), z.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.tensor(row.second_moment), z.square().mean(0), rtol=1e-4, atol=1e-6)


def test_a_reference_batch_tells_churn_and_drift_and_draws_no_random_number():
    torch.manual_seed(0)
    model = Ours()
    (fixed, *rest) = images(4)
    optimizer, sink = torch.optim.Adam(model.parameters(), lr=0.05), Records()
    CodebookMonitor(model, optimizer, [sink], every=1, reference=lambda: model(fixed))
    before = None
    state = torch.get_rng_state()
    for x in rest:
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
        with torch.no_grad():
            z = model.encoder(fixed).permute(0, 2, 3, 1).reshape(-1, D)
            indices = model.eval().vq(model.encoder(fixed)).indices.flatten()
            model.train()
        row = sink.table("latents")[-1]
        assert row.tokens == 64  # the reference batch is not counted
        if before is None:
            assert row.churn is None
        else:
            spread = (before[0] - before[0].mean(0)).square().sum(1).mean().sqrt()
            assert row.churn == pytest.approx((indices != before[1]).float().mean().item())
            assert row.encoder_drift == pytest.approx(((z - before[0]).norm(dim=1).mean() / spread).item(), rel=1e-4)
        before = z, indices
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())


def test_an_optimizer_that_has_taken_steps_before_is_told_of():
    torch.manual_seed(0)
    model = Ours()
    optimizer = torch.optim.Adam(model.parameters())
    model(images(1)[0]).backward()
    optimizer.step()
    sink = Records()
    CodebookMonitor(model, optimizer, [sink], every=1)
    for x in images(2):
        model(x).backward()
        optimizer.step()
    assert [row.attached_late for row in sink.table("movement")] == [True]
    assert not math.isnan(sink.records[0].hits.sum())


def test_the_terms_of_the_loss_are_told_apart_where_they_are_named():
    def rows(micro):
        torch.manual_seed(0)
        model, sink = Ours(), Records()
        optimizer = torch.optim.Adam(model.parameters())
        monitor = CodebookMonitor(model, optimizer, [sink], every=1)
        for part in images(1)[0].chunk(micro):
            z = model.encoder(part)
            output = model.vq(z)
            reconstruction = F.mse_loss(model.decoder(output.quantized), part)
            monitor.loss_terms({"rec": (2.0, reconstruction / micro), "vq": (0.5, output.loss / micro)})
            (2 * reconstruction / micro + 0.5 * output.loss / micro).backward()
        optimizer.step()
        return {row.term: row for row in sink.table("terms")}, sink.table("boundary")[0]

    terms, boundary = rows(1)
    torch.manual_seed(0)
    model, (x,) = Ours(), images(1)
    z = model.encoder(x)
    output = model.vq(z)
    reconstruction = F.mse_loss(model.decoder(output.quantized), x)
    for name, weight, value in (("rec", 2.0, reconstruction), ("vq", 0.5, output.loss)):
        norm = torch.autograd.grad(value, z, retain_graph=True)[0].norm().item()
        assert terms[name].weight == weight
        assert terms[name].value == pytest.approx(value.item(), rel=1e-5)
        assert terms[name].grad_norm == pytest.approx(norm, rel=1e-5)
        assert terms[name].weighted_grad_norm == pytest.approx(weight * norm, rel=1e-5)
    # Taking the terms' gradients leaves the boundary's alone.
    assert boundary.decoder_grad_norm == pytest.approx(terms["rec"].weighted_grad_norm, rel=1e-5)
    assert boundary.commitment_grad_norm == pytest.approx(terms["vq"].weighted_grad_norm, rel=1e-4)
    split, _ = rows(2)
    for name in ("rec", "vq"):
        assert split[name].value == pytest.approx(terms[name].value, rel=1e-5)
        assert split[name].grad_norm == pytest.approx(terms[name].grad_norm, rel=1e-5)


def test_velocities_are_those_of_the_busiest_codes_and_of_their_centroids():
    """A planted drift: latents move by 0.3 a step, the codes of a quantizer whose rate is zero by nothing."""
    torch.manual_seed(0)
    model, sink = Ours(), Records()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.encoder.bias.requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    CodebookMonitor(model, optimizer, [sink], every=1)
    (x,) = images(1)
    with torch.no_grad():
        model.vq.codebook.copy_(torch.tensor([0.0] * 3 + [1e3]).expand(16, D) * torch.arange(16)[:, None])
    for _ in range(4):  # all tokens are code 0's
        model(x).backward()
        optimizer.step()
        with torch.no_grad():
            model.encoder.bias += torch.tensor([0.3, 0, 0, 0])
    rows = sink.table("movement")
    assert rows[0].centroid_velocity is None
    for row in rows[1:]:
        assert row.centroid_velocity == pytest.approx(0.3, rel=1e-4)
        assert row.code_velocity == 0


def test_terms_leave_the_boundary_of_codebooks_behind_one_another_alone():
    def rows(named):
        torch.manual_seed(0)
        first, second = Stranger(rotation_trick=False), Stranger(rotation_trick=False)
        model, sink = nn.ModuleList([first, second]), Records()
        optimizer = torch.optim.Adam(model.parameters())
        monitor = CodebookMonitor(model, optimizer, [sink], every=1)
        quantized, _, loss = first.vq(first.encoder(sequences(40)[0]))
        again, _, other = second.vq(second.encoder(quantized))
        reconstruction = second.decoder(again).square().mean()
        if named:
            monitor.loss_terms({"rec": (1.0, reconstruction), "first": (1.0, loss.sum()), "second": (1.0, other.sum())})
        (reconstruction + loss.sum() + other.sum()).backward()
        optimizer.step()
        return sink.table("boundary")

    for with_terms, without in zip(rows(True), rows(False), strict=True):
        assert with_terms == without


def test_a_full_disk_is_no_fault_of_a_codebook():
    class Full(Records):
        def write(self, record):
            raise OSError(28, "No space left on device")

        write_row = write_snapshot = write

    torch.manual_seed(0)
    model = Ours()
    optimizer = torch.optim.Adam(model.parameters())
    kept = Records()
    monitor = CodebookMonitor(model, optimizer, [kept, Full()], every=1, on_error="warn")
    for x in images(3):
        model(x).backward()
        with pytest.warns(
            UserWarning, match="could not write a record, and tries again with the next: .*No space left"
        ):
            optimizer.step()
    assert len(kept.records) == 3
    monitor.on_error = "raise"
    model(images(1)[0]).backward()
    with pytest.raises(OSError, match="No space left"):
        optimizer.step()


def test_no_commitment_weight_is_told_where_another_loss_pulls_at_the_latents_too():
    # The entropy of the assignments draws latents towards some codes and away from others.
    batches = [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    torch.manual_seed(0)
    shared = rows_of(Ours("entropy", entropy_weight=0.01, kl_weight=0.01), batches)
    torch.manual_seed(0)
    alone = rows_of(Ours("standard"), batches)
    assert all(row.commitment == pytest.approx(0.25, abs=1e-6) for row in alone)
    assert all(row.straight_through_r2 > 0.99 and row.gain == pytest.approx(1, abs=1e-2) for row in shared)
    assert all(row.commitment is None and row.pull is None for row in shared)
