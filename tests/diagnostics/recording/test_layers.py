"""Layers of one quantizer are put side by side token by token, for every library whose layers are read."""

import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from strangers import STRANGERS, Host
from torch import nn
from vector_quantize_pytorch import GroupedResidualVQ, ResidualVQ, VectorQuantize

from vqtool.diagnostics import measure_codebooks
from vqtool.diagnostics.recording.ladders import ladders

BATCHES = 3


def last(output):
    return output[1]


def first_axis(output):
    return (output[1] if isinstance(output, tuple) else output).movedim(0, -1)


#: Of each stranger what tells its codes by its own account: (..., Q), in the order of the tokens.
TOLD = {
    "lucidrains residual": last,
    "lucidrains residual shared": last,
    "lucidrains residual dropout": last,
    "lucidrains residual beams": last,
    "lucidrains residual masked": last,
    "lucidrains residual cosine": last,
    "lucidrains residual implicit": last,
    "lucidrains heads separate": last,
    "lucidrains grouped residual": lambda output: torch.cat([*output[1]], -1),
    "residual fsq": last,
    "residual lfq": last,
    "residual sim": last,
    "residual dac": lambda output: output[1].movedim(1, -1),
    "diffusers ace step": last,
    "encodec residual": first_axis,
    "transformers mimi": first_axis,
    "transformers mimi split": first_axis,
}
#: Those whose layers quantize what the one before left, in one space.
RESIDUAL = {
    "lucidrains residual",
    "lucidrains residual shared",
    "lucidrains residual dropout",
    "lucidrains residual beams",
    "lucidrains residual masked",
    "lucidrains residual implicit",
    "residual lfq",
    "residual sim",
    "encodec residual",
    "transformers mimi",
}


def counted(tuples):
    """How often each tuple came, whatever its group."""
    layers = [tuples.layer(number).tolist() for number in range(len(tuples.codes))]
    found = Counter()
    for row, n in zip(zip(*layers, strict=True), tuples.counts.tolist(), strict=True):
        found[row] += n
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", TOLD)
def test_tuples_are_those_that_the_library_returns(name):
    host, batches, told = STRANGERS[name].host().eval(), STRANGERS[name].batches(BATCHES), Counter()
    with torch.no_grad():
        for batch in batches:
            rows = TOLD[name](host(batch))
            told.update(map(tuple, rows.reshape(-1, rows.shape[-1]).tolist()))
    measured = measure_codebooks(host, [*batches])
    assert not measured.unaligned
    whole = max(measured.layers.values(), key=lambda layers: len(layers.codebooks))
    if "mask" in name:  # a token that is padding has no code, whatever its other layers say
        assert counted(whole.tuples)[(-1,) * len(whole.codebooks)] == told[(-1,) * len(whole.codebooks)]
    assert counted(whole.tuples) == told
    known = not np.isnan(whole.residual_energy).any()
    assert known == (name in RESIDUAL)


def test_what_each_layer_leaves_is_what_a_loop_leaves():
    torch.manual_seed(0)
    vq = ResidualVQ(dim=4, codebook_size=8, num_quantizers=3).eval()
    batches = [torch.randn(1, n, 4) + 3 for n in (20, 50)]
    z = torch.cat(batches, 1)[0]
    rest, left = z, []
    for layer in vq.layers:
        table = layer._codebook.embed[0]
        rest = rest - table[torch.cdist(rest, table).argmin(1)]
        left.append(float(rest.square().sum() / (z - z.mean(0)).square().sum()))
    (measured,) = measure_codebooks(nn.Sequential(vq), batches).layers.values()
    assert measured.residual_energy == pytest.approx(left, rel=1e-5)
    assert measured.name == "0.layers"


def test_a_layer_that_takes_something_else_than_what_was_left_has_no_residual_energy():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(VectorQuantize(dim=4, codebook_size=8) for _ in range(2))

        def forward(self, x):
            first = self.layers[0](x)[0]
            return self.layers[1](1.1 * (x - first))

    torch.manual_seed(0)
    (measured,) = measure_codebooks(Twice(), [torch.randn(1, 50, 4)]).layers.values()
    assert np.isnan(measured.residual_energy).all()
    assert measured.collisions.tokens == 50


def test_layers_of_a_group_are_told_by_themselves_and_with_those_of_the_others():
    torch.manual_seed(0)
    host = Host(GroupedResidualVQ(dim=8, groups=2, codebook_size=8, num_quantizers=2))
    layers = measure_codebooks(host, [torch.randn(1, 40, 8)]).layers
    assert {name: len(each.codebooks) for name, each in layers.items()} == {
        "vq.rvqs.0.layers": 2,
        "vq.rvqs.1.layers": 2,
        "vq": 4,
    }
    assert not np.isnan(layers["vq.rvqs.1.layers"].residual_energy).any()
    assert np.isnan(layers["vq"].residual_energy).all()


class Calls(nn.Module):
    """Layers of a list, called as a test says."""

    def __init__(self, calls, container=nn.ModuleList):
        super().__init__()
        self.vqs = container([VectorQuantize(dim=4, codebook_size=8) for _ in range(3)])
        self.calls = calls

    def forward(self, x):
        for layer, tokens in self.calls(x):
            self.vqs[layer](tokens)


def test_layers_that_saw_other_numbers_of_tokens_are_not_compared_and_it_is_said():
    calls = lambda x: [(0, x), (1, x), (2, x[:, ::2])]  # noqa: E731
    measured = measure_codebooks(Calls(calls), [torch.randn(1, 40, 4)])
    assert not measured.layers
    assert "layers saw 20 (in calls: 1) and 40 (in calls: 1) of one batch" in measured.unaligned["vqs"]
    assert "vqs: not measured together: which tokens belong together cannot be known" in str(measured)


def test_tokens_in_other_calls_are_not_compared_either():
    calls = lambda x: [(0, x), (1, x[:, :20]), (1, x[:, 20:]), (2, x)]  # noqa: E731
    assert "vqs" in measure_codebooks(Calls(calls), [torch.randn(1, 40, 4)]).unaligned


def test_a_layer_that_was_not_called_in_a_batch_was_dropped_there():
    batches = [torch.randn(1, n, 4) for n in (40, 30)]
    calls = lambda x: [(0, x), (1, x)] + [(2, x)] * (x.shape[1] == 30)  # noqa: E731
    (measured,) = measure_codebooks(Calls(calls), batches).layers.values()
    assert (measured.collisions.tokens, measured.collisions.incomplete) == (30, 40)
    assert [each.tokens for each in measured.conditional] == [70, 70, 30]


def test_quantizers_in_a_row_are_no_layers_of_one():
    calls = lambda x: [(0, x), (1, x), (2, x)]  # noqa: E731
    row = Calls(calls, container=lambda several: nn.Sequential(*several))
    assert not measure_codebooks(row, [torch.randn(1, 40, 4)]).layers


def test_batches_are_what_the_intervals_are_over():
    torch.manual_seed(0)
    vq = nn.Sequential(ResidualVQ(dim=4, codebook_size=8, num_quantizers=2))
    few = measure_codebooks(vq, torch.randn(4, 1, 100, 4)).layers["0.layers"]
    assert [(each.low, each.high) for each in few.conditional] == [(0, 3), (0, 3)]
    assert "not known given those before" in str(few)
    many = measure_codebooks(vq, torch.randn(30, 1, 100, 4)).layers["0.layers"]
    assert 0 < many.conditional[1].low <= many.conditional[1].high < 3
    assert math.isclose(many.efficiency, sum(each.plug_in for each in many.alone) / 6)


def test_ladders_are_codebooks_whose_paths_end_in_numbers_from_zero_on():
    names = ["a.layers.0", "a.layers.1", "b.head0", "b.head1", "c.1", "c.2", "d", "0.layer0", "0.layer1", "layers.10"]
    found = {
        each.name: (each.codebooks, each.layered) for each in ladders([*names, *(f"layers.{n}" for n in range(10))])
    }
    assert found == {
        "a.layers": (("a.layers.0", "a.layers.1"), True),
        "b": (("b.head0", "b.head1"), False),
        "0": (("0.layer0", "0.layer1"), True),
        "layers": (tuple(f"layers.{n}" for n in range(11)), True),
    }


RANKS = """
import sys, torch, torch.distributed as dist
from torch import nn
from vector_quantize_pytorch import ResidualVQ
from vqtool.diagnostics import measure_codebooks
rank, place = int(sys.argv[1]), sys.argv[2]
if rank >= 0:
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
torch.manual_seed(0)
vq = nn.Sequential(ResidualVQ(dim=4, codebook_size=8, num_quantizers=2).eval())
batches = [*torch.randn(6, 1, 30, 4)]
found = measure_codebooks(vq, batches if rank < 0 else batches[rank::2]).layers["0.layers"]
print(found.collisions, [round(each, 5) for each in found.residual_energy], found.tuples.counts.sum())
"""


@pytest.mark.slow
def test_ranks_together_see_what_one_process_sees(tmp_path):
    def start(rank):
        command = [sys.executable, "-c", RANKS, str(rank), str(tmp_path / "meeting")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    told = [process.communicate(timeout=300)[0].splitlines()[-1:] for process in [start(-1), start(0), start(1)]]
    assert told[0]
    assert told[0] == told[1] == told[2]
