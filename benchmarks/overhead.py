"""What the instrument costs: its share of a training step of the default recipe, in one run.

    python benchmarks/overhead.py [--steps 60] [--codebook-sizes 512,16384] [--every 1,100]

Two figures per cell. "inside": time spent inside the instrument's hooks and sinks, trace on disk included, over the
time of the same number of steps without it; on a CPU, where every operation has ended when its call returns, this is
the whole cost and hardly noisy. "paired": median over rounds of (a step with the hooks) / (a step without), taken in
turn on one model, minus one; it includes what the hooks do to caches, and the machine's noise. On CUDA only "paired"
means anything.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from lightning_fabric import Fabric

from vqtool.diagnostics import CodebookMonitor, TraceSink
from vqtool.experiments.recipes import recipe
from vqtool.vqgan.autoencoder.learner import AutoencoderLearner
from vqtool.vqgan.autoencoder.settings import build_autoencoder_config
from vqtool.vqgan.config.layers import merge
from vqtool.vqgan.data import Batches
from vqtool.vqgan.data.opening import open_images


class Stopwatch:
    """Adds up the time inside the methods that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def wrap(self, owner: object, name: str) -> None:
        method = getattr(owner, name)

        def timed(*args: object, **kwargs: object) -> object:
            began, self._depth = time.perf_counter(), self._depth + 1
            try:
                return method(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - began

        setattr(owner, name, timed)


def measure(codebook_size: int, every: int, steps: int) -> tuple[float, float, float]:
    """Seconds of a plain step, share inside the instrument, paired ratio minus one."""
    config = build_autoencoder_config(merge(recipe("photos").settings, {"quantizer": {"codebook_size": codebook_size}}))
    learner = AutoencoderLearner(Fabric(accelerator="auto", devices=1), config)
    learner.monitor.detach()
    batches = Batches(open_images(config.data)["train"], config.train.batch_size, 0)

    def step(number: int) -> float:
        began = time.perf_counter()
        learner.step(number, batches)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for number in range(5):
        step(number)
    with tempfile.TemporaryDirectory() as folder:
        sink, watch = TraceSink(Path(folder)), Stopwatch()
        monitor = CodebookMonitor(learner.model, learner.optimizer.optimizer, [sink], every=every)
        monitor.detach()
        watch.wrap(sink, "write")
        for window in monitor.windows.values():
            for name in ("add", "end_step", "close"):
                watch.wrap(window, name)
        plain, ratios = [], []
        for turn in range(steps):
            plain.append(step(2 * turn))
            monitor.attach()
            ratios.append(step(2 * turn + 1) / plain[-1])
            monitor.detach()
        watch.wrap(monitor, "flush")
        monitor.flush()
    return statistics.median(plain), watch.seconds / sum(plain), statistics.median(ratios) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--codebook-sizes", default="512,16384")
    parser.add_argument("--every", default="1,100")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, recipe photos, {arguments.steps} rounds")
    print(f"{'K':>6} {'record every':>12} {'step':>9} {'inside':>8} {'paired':>8}")
    for codebook_size in map(int, arguments.codebook_sizes.split(",")):
        for every in map(int, arguments.every.split(",")):
            step, inside, paired = measure(codebook_size, every, arguments.steps)
            print(f"{codebook_size:>6} {every:>12} {step * 1e3:>6.0f} ms {inside:>7.2%} {paired:>7.2%}", flush=True)


if __name__ == "__main__":
    main()
