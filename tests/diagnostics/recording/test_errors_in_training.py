"""A codebook that turns out unreadable once training is under way: stop, or go on without it, as its user chose."""

import warnings

import pytest
import torch
from records import Records
from sequence_model import D, K, sequences
from torch import nn

from vqtool.diagnostics import CodebookMonitor, InputError, Reader, find_codebooks


class Inner(nn.Module):
    """A quantizer that no probe knows."""

    def __init__(self):
        super().__init__()
        self.book = nn.Parameter(torch.randn(K, D))

    def forward(self, z):
        ids = torch.cdist(z.detach(), self.book.detach()).argmin(-1)
        return z + (self.book[ids] - z).detach(), ids


class Home(nn.Module):
    """The model around it; its forward is the loss."""

    def __init__(self):
        super().__init__()
        self.encoder, self.inner = nn.Linear(D, D), Inner()

    def forward(self, x):
        return self.inner(self.encoder(x))[0].square().mean()


def reader(**changes):
    good = {
        "latents": lambda call: call.args[0],
        "indices": lambda call: call.output[1],
        "codebook": lambda module: module.book,
        "quantized": lambda call: call.output[0],
    }
    return Reader(**good | changes)


def train(read, on_error="raise", steps=3, spoil=None):
    torch.manual_seed(0)
    model, sink = Home(), Records()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    CodebookMonitor(model, optimizer, [sink], every=1, read={"inner": read}, on_error=on_error)
    done = 0
    for number, x in enumerate(sequences(*[8] * steps), start=1):
        if spoil is not None and number == 3:
            spoil(model)
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
        done += 1
    return sink, done


def test_a_reader_of_ones_own_is_as_good_as_a_probe():
    sink, _ = train(reader())
    assert [record.hits.sum() for record in sink.records] == [8, 8, 8]
    assert {row.estimator for row in sink.table("boundary")} == {"straight-through"}


WRONG = {
    "indices of float dtype": ({"indices": lambda call: call.output[1].float()}, "indices are torch.float32"),
    "indices out of range": ({"indices": lambda call: call.output[1] + K}, "in a codebook of 16 codes"),
    "too few indices": ({"indices": lambda call: call.output[1][:, :3]}, "3 indices for 8 tokens"),
    "another codebook": ({"codebook": lambda module: module.book + 1}, "not the rows of its codebook at its indices"),
    "a mistake of its own": ({"latents": lambda call: call.args[7]}, "inner cannot be read: IndexError: tuple index"),
    "latents of another width": ({"latents": lambda call: call.args[0][..., :2]}, "."),
    "no tensor": ({"indices": lambda call: None}, "indices"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_reader_that_gives_something_wrong_is_told_in_one_line(name):
    changes, told = WRONG[name]
    with pytest.raises(InputError, match=told) as error:
        train(reader(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WRONG)
def test_who_chose_to_be_warned_trains_on(name):
    changes, told = WRONG[name]
    with pytest.warns(UserWarning, match=told) as warned:
        sink, done = train(reader(**changes), on_error="warn")
    assert done == 3
    assert len([each for each in warned if "records inner no longer" in str(each.message)]) == 1
    assert not sink.records


def grow(model):
    model.inner.book = nn.Parameter(torch.randn(2 * K, D))


def test_a_codebook_that_changes_its_size_in_mid_run_is_told_of():
    with pytest.raises(InputError, match="inner has 32 codes now and had 16: attach a new monitor"):
        train(reader(), spoil=grow)
    with pytest.warns(UserWarning, match="inner has 32 codes now and had 16"):
        sink, done = train(reader(), on_error="warn", steps=5, spoil=grow)
    assert done == 5
    assert [record.step for record in sink.records] == [1, 2]


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_a_reference_batch_that_fails_is_told_in_one_line(on_error):
    torch.manual_seed(0)
    model, sink = Home(), Records()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = CodebookMonitor(
        model,
        optimizer,
        [sink],
        every=1,
        read={"inner": reader()},
        reference=lambda: model(None),
        on_error=on_error,
    )
    model(sequences(8)[0]).backward()
    told = "the reference batch cannot be encoded: TypeError"
    if on_error == "raise":
        with pytest.raises(InputError, match=told):
            optimizer.step()
    else:
        with pytest.warns(UserWarning, match=told):
            optimizer.step()
        assert len(sink.records) == 1
    assert all(module.training for module in model.modules())
    monitor.detach()


def test_a_batch_without_tokens_does_no_harm():
    torch.manual_seed(0)
    model, sink = Home(), Records()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    CodebookMonitor(model, optimizer, [sink], every=1, read={"inner": reader()})
    for x in sequences(8, 0, 8):
        optimizer.zero_grad()
        model(x).nan_to_num().backward()
        optimizer.step()
    assert [record.hits.sum() for record in sink.records] == [8, 0, 8]


def test_what_only_looks_like_a_quantizer_drops_out_without_a_word_of_error():
    class Wrapped(nn.Module):
        """A bare table of positions: looked up by integers."""

        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(K, D)

        def forward(self, ids):
            return self.embedding(ids)

    torch.manual_seed(0)
    model = nn.ModuleDict({"home": Home(), "positions": Wrapped()})
    found = find_codebooks(model, {"home.inner": reader()})
    optimizer, sink = torch.optim.SGD(model.parameters(), lr=0.1), Records()
    monitor = CodebookMonitor(model, optimizer, [sink], every=1, read={"home.inner": reader()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in sequences(8, 8):
            optimizer.zero_grad()
            (model["home"](x) + model["positions"](torch.arange(4)).sum()).backward()
            optimizer.step()
    assert [record.codebook for record in sink.records] == ["home.inner"] * 2
    if "positions" in found:
        assert "positions" in monitor.codebooks.unread


def test_what_looks_like_a_quantizer_and_is_not_read_is_named():
    class StrangeVectorQuantizer(nn.Module):
        def forward(self, x):
            return x

    model = nn.ModuleDict({"home": Home(), "odd": StrangeVectorQuantizer()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match=r"vqtool watches home\.inner, and not odd: "):
        CodebookMonitor(model, optimizer, read={"home.inner": reader()})
