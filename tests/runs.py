"""Runs compared bit for bit."""

from contextlib import contextmanager

import pandas as pd
import pytest
import torch

from vqtool.diagnostics.recording.rows import TABLES
from vqtool.diagnostics.run import folders_in


class PowerCutError(BaseException):
    pass


@contextmanager
def power_cut(learner, at):
    """Training breaks off before step ``at``."""
    step = learner.step

    def cut(self, number, batches):
        if number == at:
            raise PowerCutError
        return step(self, number, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "step", cut)
        with pytest.raises(PowerCutError):
            yield


def same(a, b, where="state"):
    """Assert that two nested states are equal bit for bit: NaN is the same as NaN, 0.0 and -0.0 are not the same."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    elif torch.is_tensor(a):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), where
        assert torch.equal(bits(a), bits(b)), where
    elif isinstance(a, float):
        assert a.hex() == b.hex(), where
    else:
        assert a == b, where


def bits(tensor):
    """The bytes of a tensor, whatever its dtype."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def assert_same_run(a, b):
    """Assert that two runs left the same behind, bit for bit: checkpoint, metrics, trace, tables, evaluation."""
    same(state(a), state(b))
    same(metrics(a), metrics(b), "metrics")
    same(told(a), told(b), "evaluation")
    beside = [folder for name in TABLES for folder in folders_in(a.table(name))]
    tables = [path.relative_to(a.path) for path in (*a.codebooks(), *beside, *sorted(a.path.glob("*.parquet")))]
    assert tables
    for path in tables:
        pd.testing.assert_frame_equal(pd.read_parquet(a.path / path), pd.read_parquet(b.path / path), check_exact=True)


def state(run):
    """The last checkpoint, without the time that it took."""
    loaded = torch.load(run.last_checkpoint, weights_only=True)
    del loaded["seconds"]
    return loaded


def metrics(run):
    """The logged lines, without the speed."""
    rows = [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in run.read_metrics()]
    assert rows
    return rows


def told(run):
    """The evaluation of the test split."""
    figures = run.read_json(run.evaluation("test"))
    assert figures
    return figures
