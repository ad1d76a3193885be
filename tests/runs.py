"""Runs compared bit for bit."""

from contextlib import contextmanager

import pytest
import torch


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
    """Assert that two nested states are equal bit for bit."""
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
        assert torch.equal(a, b) or (a.isnan() == b.isnan()).all(), where
    else:
        assert a == b, where


def state(run):
    loaded = torch.load(run.checkpoints / "last.ckpt", weights_only=True)
    del loaded["seconds"]
    return loaded


def metrics(run):
    return [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in run.read_metrics()]
