"""Memory of one forward and backward pass of every quantizer in training, beside the dense computation and a library.

    python benchmarks/memory.py                              # the cells of CELLS
    python benchmarks/memory.py --cells 8192x64x16384        # only these, NxDxK
    python benchmarks/memory.py --of entropy --cells 8192x64x16384   # one number, MiB

How to read it. A figure is the growth of the process's resident set at its peak (VmHWM, Linux) over one forward and
backward pass, in MiB, in a process of its own with the allocator's default settings; the gradients that stay are part
of it, the inputs and the quantizer are not. A small pass comes before, so that libraries are loaded. "dense" is the
figure of the same computation with tokens x codes in one block over vqtool's: 10 means ten times as much. "lucid" is
the same for vector_quantize_pytorch.VectorQuantize, a dash where it is not installed:

    standard   learnable_codebook=True, ema_update=False
    ema        its defaults
    gumbel     stochastic_sample_codes=True, straight_through=True, else its defaults: it samples by distance
    entropy    as standard, with codebook_diversity_loss_weight=0.1; the entropy of single tokens it does not have

A question mark stands where less memory is available than the dense computation may need.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vqtool.vqgan.quantizers import QUANTIZERS, chunks

CELLS = [(4096, 64, 1024), (8192, 64, 16384), (8192, 256, 16384), (16384, 64, 16384)]
LIMIT_MIB = 300
#: Blocks of tokens x codes that a dense pass holds at once, at most.
DENSE_BLOCKS = 12
LUCID = {
    "standard": {"learnable_codebook": True, "ema_update": False},
    "ema": {},
    "gumbel": {"stochastic_sample_codes": True, "straight_through": True},
    "entropy": {"learnable_codebook": True, "ema_update": False, "codebook_diversity_loss_weight": 0.1},
}

Cell = tuple[int, int, int]


def status_mib(entry: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) / 1024


def ours(name: str, D: int, K: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    quantizer = QUANTIZERS[name](K, D)

    def run(latents: Tensor) -> tuple[Tensor, Tensor]:
        output = quantizer(latents)
        return output.quantized, output.loss

    return run


def lucid(name: str, D: int, K: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    from vector_quantize_pytorch import VectorQuantize

    quantizer = VectorQuantize(D, K, accept_image_fmap=True, rotation_trick=False, **LUCID[name])

    def run(latents: Tensor) -> tuple[Tensor, Tensor]:
        quantized, _, loss = quantizer(latents)
        return quantized, loss.sum()

    return run


def growth_of_peak(who: str, name: str, cell: Cell) -> float:
    """MiB by which one forward and backward pass raises the peak resident set of this process."""
    make = lucid if who == "lucid" else ours

    def step(N: int, D: int, K: int) -> float:
        torch.manual_seed(0)
        quantizer = make(name, D, K)
        latents = torch.randn(N // 64, D, 8, 8).requires_grad_()
        gradient = torch.randn(latents.shape)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what is resident now
        before = status_mib("VmRSS")
        torch.autograd.backward(quantizer(latents), (gradient, torch.ones(())))
        return status_mib("VmHWM") - before

    step(128, 8, 64)
    if who == "dense":
        chunks.BLOCK = cell[0] * cell[2]
    return step(*cell)


def growth_in_own_process(who: str, name: str, cell: Cell) -> float | None:
    """The same in a new process, None where the memory may not suffice."""
    N, _, K = cell
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if who != "ours" and available < DENSE_BLOCKS * N * K * 4:
        return None
    command = [sys.executable, __file__, "--of", name, "--who", who, "--cells", "x".join(map(str, cell))]
    command += ["--threads", str(torch.get_num_threads())]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def peers() -> list[str]:
    try:
        import vector_quantize_pytorch  # noqa: F401
    except ImportError:
        return ["dense"]
    return ["dense", "lucid"]


def ratio(growth: float | None, yardstick: float) -> str:
    return "?" if growth is None else f"{growth / yardstick:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", metavar="NxDxK", default=["x".join(map(str, cell)) for cell in CELLS])
    parser.add_argument("--of", choices=QUANTIZERS, help="only print the MiB of this one at the first cell")
    parser.add_argument("--who", choices=["ours", "dense", "lucid"], default="ours")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cells = [tuple(int(size) for size in cell.split("x")) for cell in args.cells]
    if args.of:
        print(growth_of_peak(args.who, args.of, cells[0]))
        return
    print(f"torch {torch.__version__}, {args.threads} threads")
    print(f"{'N':>6} {'D':>4} {'K':>6} {'quantizer':>10} {'vqtool MiB':>11} {'dense':>6} {'lucid':>6}")
    most = 0.0
    for cell in cells:
        for name in QUANTIZERS:
            growth = growth_in_own_process("ours", name, cell) or 0.0
            most = max(most, growth)
            ratios = {who: ratio(growth_in_own_process(who, name, cell), growth) for who in peers()}
            row = "".join(f"{size:>{width}} " for size, width in zip(cell, (6, 4, 6), strict=True))
            row += f"{name:>10} {growth:>11.0f} {ratios['dense']:>6} {ratios.get('lucid', '-'):>6}"
            print(row, flush=True)
    met = "met    " if most <= LIMIT_MIB else "NOT met"
    print(f"\n{met}  every quantizer needs at most {LIMIT_MIB} MiB in every cell: most {most:.0f}")


if __name__ == "__main__":
    main()
