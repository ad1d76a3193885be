"""A loop with accelerate, which needs no callback."""

import pytest
from accelerate import Accelerator
from token_loops import SIZES, Model, assert_same_trace, batches, tokens
from torch.optim import Adam
from torch.utils.data import DataLoader

from vqtool.diagnostics import CodebookMonitor, TraceSink


class Loop:
    """A model, its optimizer and its loader as they are prepared, and a monitor of them."""

    def __init__(self, every, **options):
        self.accelerator = Accelerator(cpu=True, **options)
        model = Model(learnable=True)
        loader = DataLoader(batches(), batch_size=None)
        prepared = self.accelerator.prepare(model, Adam(model.parameters(), lr=1e-2), loader)
        self.model, self.optimizer, self.loader = prepared
        self.monitor = CodebookMonitor(self.model, self.optimizer, every=every)
        self.accelerator.register_for_checkpointing(self.monitor)

    def train(self, start=0, stop=6, save_at=None, folder=None):
        for number, x in enumerate(self.loader):
            if start <= number < stop:
                with self.accelerator.accumulate(self.model):
                    self.accelerator.backward(self.model(x)["loss"])
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                if number + 1 == save_at:
                    self.accelerator.save_state(folder)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_record_has_the_tokens_of_its_own_step(tmp_path, accumulate):
    loop = Loop(every=1, gradient_accumulation_steps=accumulate)
    loop.monitor.sinks = [TraceSink(tmp_path)]
    loop.train()
    loop.monitor.close()
    one_by_one = dict(enumerate(SIZES, start=1))
    assert tokens(tmp_path) == (one_by_one if accumulate == 1 else {1: 4 + 6, 2: 8 + 10, 3: 12 + 14})


@pytest.mark.parametrize("saved_at", [2, 3])
def test_a_resumed_run_leaves_the_trace_of_an_uninterrupted_one(tmp_path, saved_at):
    """Windows of two steps; what is saved stands at the end of one or within one, and the run broke off after five."""
    whole, broken, resumed = Loop(every=2), Loop(every=2), Loop(every=2)
    for loop, run, end in ((whole, "whole", 6), (broken, "broken", 5)):
        loop.monitor.sinks = [TraceSink(tmp_path / run)]
        loop.train(stop=end, save_at=saved_at, folder=tmp_path / f"saved-{run}")
        loop.monitor.flush()

    resumed.accelerator.load_state(tmp_path / "saved-broken")
    resumed.monitor.sinks = [TraceSink(tmp_path / "broken", resume_at=resumed.monitor.step)]
    resumed.train(start=saved_at)
    for loop in (whole, resumed):
        loop.monitor.close()
    assert_same_trace(tmp_path / "whole", tmp_path / "broken")


def test_one_process_goes_back_to_a_state_with_its_trace(tmp_path):
    whole, loop = Loop(every=2), Loop(every=2)
    whole.monitor.sinks, loop.monitor.sinks = [TraceSink(tmp_path / "whole")], [sink := TraceSink(tmp_path / "back")]
    whole.train()
    loop.train(save_at=3, folder=tmp_path / "saved")
    loop.accelerator.load_state(tmp_path / "saved")
    sink.rewind(loop.monitor.step)
    loop.train(start=3)
    for each in (whole, loop):
        each.monitor.close()
    assert_same_trace(tmp_path / "whole", tmp_path / "back")
