"""What the instrument costs: its share of a training step, by tier, in one run.

    python benchmarks/overhead.py [--steps 100] [--codebook-sizes 512,16384] [--every 1,100]
        [--models ours,vector_quantize_pytorch] [--tiers counters,everything]

Batches of 64 images of 32 x 32 pixels. Tiers: "counters" is every code's hits, distortion, gradient, pull and resets at
every step; "everything" adds latents, boundary, movement, snapshots and geometry on their default schedules from the
first step on, when they are densest. "inside": time inside the instrument and its sinks, trace on disk included, over
the time of the same number of steps without it; on a CPU, where every operation has ended when its call returns, this
is the whole cost and hardly noisy. "paired": median over rounds of (a step with the instrument) / (a step without),
taken in turn on one model, minus one; it includes what the hooks do to caches, and the machine's noise. On CUDA only
"paired" means anything.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas  # noqa: F401 (pyarrow imports it at its first array, once in a process)
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from vqtool.diagnostics import CodebookMonitor, TraceSink
from vqtool.diagnostics.recording.codebook_watch import Detail
from vqtool.experiments.recipes import recipe
from vqtool.vqgan.autoencoder.learner import AutoencoderLearner
from vqtool.vqgan.autoencoder.settings import build_autoencoder_config
from vqtool.vqgan.config.layers import merge
from vqtool.vqgan.data import Batches
from vqtool.vqgan.data.opening import open_images

BATCH, SIZE, DIM = 64, 32, 256
TIERS = {"counters": None, "everything": Detail()}

#: A model under training: the module, its optimizer, and a step.
Training = tuple[nn.Module, torch.optim.Optimizer, Callable[[int], None]]


class Stopwatch:
    """Adds up the time inside the methods that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def wrap(self, owner: object, *names: str) -> None:
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, method: Callable) -> Callable:
        def timed(*args: object, **kwargs: object) -> object:
            began, self._depth = time.perf_counter(), self._depth + 1
            try:
                return method(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - began

        return timed


def ours(codebook_size: int) -> Training:
    """The default recipe of photographs, on smaller images."""
    settings = {
        "quantizer": {"codebook_size": codebook_size},
        "data": {"image_size": SIZE},
        "train": {"batch_size": BATCH},
    }
    config = build_autoencoder_config(merge(recipe("photos").settings, settings))
    learner = AutoencoderLearner(Fabric(accelerator="auto", devices=1), config)
    learner.monitor.detach()
    learner.monitor.step_over = lambda: None  # ours is not the one that is measured
    batches = Batches(open_images(config.data)["train"], config.train.batch_size, 0)
    return learner.model, learner.optimizer.optimizer, lambda number: learner.step(number, batches) and None


class Stranger(nn.Module):
    """An autoencoder of somebody else's around ``VectorQuantize`` as it comes; its forward is the loss."""

    def __init__(self, codebook_size: int):
        from vector_quantize_pytorch import VectorQuantize

        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, 128, 4, 2, 1), nn.ReLU(), nn.Conv2d(128, DIM, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(DIM, DIM, 3, padding=1), nn.ReLU(), nn.Conv2d(DIM, DIM, 3, padding=1)),
        )
        self.vq = VectorQuantize(dim=DIM, codebook_size=codebook_size, accept_image_fmap=True)
        self.decoder = nn.Sequential(
            *(nn.Conv2d(DIM, DIM, 3, padding=1), nn.ReLU(), nn.Conv2d(DIM, DIM, 3, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(DIM, 128, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(128, 3, 4, 2, 1)),
        )

    def forward(self, images: Tensor) -> Tensor:
        quantized, _, loss = self.vq(self.encoder(images))
        return F.mse_loss(self.decoder(quantized), images) + loss.sum()


def stranger(codebook_size: int) -> Training:
    """A loop of somebody else's."""
    torch.manual_seed(0)
    model = Stranger(codebook_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    images = torch.rand(8, BATCH, 3, SIZE, SIZE)

    def step(number: int) -> None:
        optimizer.zero_grad()
        model(images[number % len(images)]).backward()
        optimizer.step()

    return model, optimizer, step


MODELS = {"ours": ours, "vector_quantize_pytorch": stranger}


def measure(training: Training, detail: Detail | None, every: int, rounds: int) -> tuple[float, float, float]:
    """Seconds of a plain step, share inside the instrument, paired ratio minus one."""
    model, optimizer, step = training

    def seconds(number: int) -> float:
        began = time.perf_counter()
        step(number)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for number in range(3):
        seconds(number)
    with tempfile.TemporaryDirectory() as folder:
        sink, watch = TraceSink(Path(folder)), Stopwatch()
        watch.wrap(sink, "write", "write_row", "write_snapshot")
        monitor = CodebookMonitor(model, optimizer, [sink], every=every, detail=detail)
        monitor.detach()
        for name, watched in monitor.watches.items():
            watch.wrap(watched, "add", "read_gradients", "read_codes", "close_step", "close_window", "take_snapshots")
            watch.wrap(monitor.codebooks[name], "read")
        plain, ratios = [], []
        for turn in range(rounds):
            plain.append(seconds(2 * turn))
            monitor.attach()
            ratios.append(seconds(2 * turn + 1) / plain[-1])
            monitor.detach()
        watch.wrap(monitor, "flush")
        monitor.flush()
    return statistics.median(plain), watch.seconds / sum(plain), statistics.median(ratios) - 1


def cells(arguments: argparse.Namespace) -> Iterator[tuple[str, int, str, int]]:
    for model in arguments.models.split(","):
        for codebook_size in map(int, arguments.codebook_sizes.split(",")):
            for tier in arguments.tiers.split(","):
                for every in map(int, arguments.every.split(",")):
                    yield model, codebook_size, tier, every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--codebook-sizes", default="512,16384")
    parser.add_argument("--every", default="1,100")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--tiers", default=",".join(TIERS))
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.steps} rounds")
    print(f"{'model':>23} {'K':>6} {'tier':>10} {'record every':>12} {'step':>9} {'inside':>8} {'paired':>8}")
    for model, codebook_size, tier, every in cells(arguments):
        step, inside, paired = measure(MODELS[model](codebook_size), TIERS[tier], every, arguments.steps)
        cell = f"{model:>23} {codebook_size:>6} {tier:>10} {every:>12}"
        print(f"{cell} {step * 1e3:>6.0f} ms {inside:>7.2%} {paired:>7.2%}", flush=True)


if __name__ == "__main__":
    main()
