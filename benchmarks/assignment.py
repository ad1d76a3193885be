"""Speed and memory of the nearest-code search and of whole quantizers, beside two libraries and a dense matmul.

    python benchmarks/assignment.py               # all cells with the allocator settings of this shell
    python benchmarks/assignment.py --allocators  # all cells twice: default allocator, then one that keeps its memory
    python benchmarks/assignment.py --quick       # one small cell, to see that it runs

How to read it. Candidates take turns within one process, so that a busy machine slows all of them alike; a figure is
the median over rounds of (candidate / yardstick) in the same round. In the search table the yardstick is one dense
float32 matmul `latents @ codebook.T` (its milliseconds stand beside it): 0.5 means half of its time. In the quantizer
tables it is vqtool: 3.0 means three times the time of `StandardQuantizer`, so that above 1 vqtool is the faster one.
The claims come last, each met or not met with its worst figure; the exit code is 0 either way.

Noise. Where other processes keep the cores busy, a call of many parallel steps waits longer than a call of few, and
turns do not mend that. So only quiet rounds count (other processes used less than a quarter of a core, by /proc/stat);
the last column has their number out of all rounds. A row with a star found fewer than 3 and counts all: noise.

Allocator. Above 32 MiB glibc maps fresh pages on every call and the kernel clears them one fault at a time, which
flatters whoever allocates little, as the tiled search does. The header counts the page faults, and `--allocators` shows
the figures with them and without. The second setting (MALLOC_* below) takes a few calls until the heap has its size.

Candidates:
    vqtool      nearest_codes; StandardQuantizer(K, D)
    diffusers   argmin of torch.cdist, as in its forward; VectorQuantizer(K, D, beta=0.25, legacy=False)
    lucid-grad  vector_quantize_pytorch.VectorQuantize(D, K, accept_image_fmap=True, commitment_weight=0.25,
                rotation_trick=False, learnable_codebook=True, ema_update=False)
    lucid-ema   the same with its defaults learnable_codebook=False, ema_update=True; in the search table its forward
                in eval mode, which is how it encodes
A forward + backward feeds one fixed gradient into the quantized latents and 1 into the loss. All in training mode
unless said otherwise. Memory is the growth of the peak resident set (VmHWM, Linux) over one search, in a process of
its own with the default allocator.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.models.autoencoders.vae import VectorQuantizer
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from vqtool.vqgan.quantizers import StandardQuantizer, nearest_codes

CELLS = [(N, D, K) for N in (4096, 16384) for D in (64, 256) for K in (1024, 16384)]
QUICK_CELLS = [(1024, 64, 1024)]
#: The share of a dense matmul's time that the search may take, by cell (N, D, K).
TARGETS = {(4096, 64, 16384): 0.65, (16384, 64, 1024): 0.75}
MEMORY_LIMIT_MIB = 64
#: A round is quiet while other processes keep fewer cores than this busy.
QUIET_CORES = 0.25
#: No memory ever goes back to the kernel: every block comes from the heap and stays there.
KEEPING_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 28),
}

ALLOCATOR_KEYS = ("GLIBC_TUNABLES", "LD_PRELOAD")

Candidates = dict[str, Callable[[], object]]
Ratios = dict[str, float]


def make_data(N: int, D: int, K: int) -> tuple[Tensor, Tensor]:
    """(N, D) latents and a (K, D) codebook, standard normal."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, D, generator=generator), torch.randn(K, D, generator=generator)


def make_quantizers(D: int, codebook: Tensor) -> dict[str, nn.Module]:
    """The whole quantizers, all on the same codebook."""
    K = len(codebook)
    lucid = {"accept_image_fmap": True, "commitment_weight": 0.25, "rotation_trick": False}
    quantizers = {
        "vqtool": StandardQuantizer(codebook_size=K, dim=D),
        "diffusers": VectorQuantizer(K, D, beta=0.25, legacy=False),
        "lucid-grad": VectorQuantize(D, K, learnable_codebook=True, ema_update=False, **lucid),
        "lucid-ema": VectorQuantize(D, K, learnable_codebook=False, ema_update=True, **lucid),
    }
    with torch.no_grad():
        quantizers["vqtool"].embedding.weight.copy_(codebook)
        quantizers["diffusers"].embedding.weight.copy_(codebook)
        for name in ("lucid-grad", "lucid-ema"):
            quantizers[name]._codebook.embed.copy_(codebook[None])
            quantizers[name]._codebook.embed_avg.copy_(codebook[None])
            quantizers[name]._codebook.cluster_size.fill_(1.0)
    return quantizers


def to_map(latents: Tensor) -> Tensor:
    """(N, D) -> (N / 256, D, 16, 16), the layout that an encoder hands over."""
    return latents.view(-1, 16, 16, latents.shape[1]).permute(0, 3, 1, 2).contiguous()


def quantized_and_loss(output: tuple) -> tuple[Tensor, Tensor]:
    """Of any of the quantizers: vqtool (quantized, indices, loss, losses) and the libraries' triples."""
    scalars = [part for part in output[1:3] if isinstance(part, Tensor) and part.is_floating_point()]
    return output[0], scalars[0].sum()


def search_candidates(latents: Tensor, codebook: Tensor) -> Candidates:
    """The yardstick first."""
    encoder = make_quantizers(latents.shape[1], codebook)["lucid-ema"].eval()
    image = to_map(latents)
    return {
        "dense matmul": lambda: latents @ codebook.T,
        "vqtool": lambda: nearest_codes(latents, codebook),
        "diffusers": lambda: torch.cdist(latents, codebook).argmin(1),
        "lucid-ema": lambda: encoder(image),
    }


def forward_candidates(latents: Tensor, codebook: Tensor) -> Candidates:
    image = to_map(latents)
    quantizers = make_quantizers(latents.shape[1], codebook)
    return {name: lambda quantizer=quantizer: quantizer(image) for name, quantizer in quantizers.items()}


def backward_candidates(latents: Tensor, codebook: Tensor) -> Candidates:
    image = to_map(latents).requires_grad_()
    gradient = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))

    def step(quantizer: nn.Module) -> None:
        image.grad = None
        quantizer.zero_grad()
        quantized, loss = quantized_and_loss(quantizer(image))
        torch.autograd.backward((quantized, loss), (gradient, torch.ones(())))

    quantizers = make_quantizers(latents.shape[1], codebook)
    return {name: lambda quantizer=quantizer: step(quantizer) for name, quantizer in quantizers.items()}


def busy_seconds() -> float:
    """CPU seconds that all processes of this machine have used, all cores together."""
    user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")


def in_turn(candidates: Candidates) -> tuple[Ratios, float]:
    """Seconds of one call of each candidate, and the cores that other processes kept busy meanwhile."""
    seconds, start, start_busy, start_own = {}, time.perf_counter(), busy_seconds(), time.process_time()
    for name, function in candidates.items():
        before = time.perf_counter()
        function()
        seconds[name] = time.perf_counter() - before
    others = busy_seconds() - start_busy - (time.process_time() - start_own)
    return seconds, others / (time.perf_counter() - start)


def ratios_in_turn(candidates: Candidates, rounds: int, patience: float) -> tuple[Ratios, float, str]:
    """Median over rounds of each candidate's time over the first one's, the first one's median seconds, a note.

    After a warm-up round, rounds go on until ``rounds`` were quiet or ``patience`` seconds are over. The quiet ones
    count; where there are fewer than 3 all count, and the note has a star.
    """
    in_turn(candidates)
    start, every, quiet = time.perf_counter(), [], []
    while len(every) < 3 or (len(quiet) < rounds and time.perf_counter() - start < patience):
        seconds, others = in_turn(candidates)
        every.append(seconds)
        if others < QUIET_CORES:
            quiet.append(seconds)
    counted = quiet if len(quiet) >= 3 else every
    yardstick = next(iter(candidates))
    ratios = {name: statistics.median(each[name] / each[yardstick] for each in counted) for name in candidates}
    note = f"{len(quiet):>4}/{len(every)}{' *' if counted is every else ''}"
    return ratios, statistics.median(each[yardstick] for each in counted), note


def print_table(
    title: str,
    make: Callable[[Tensor, Tensor], Candidates],
    cells: list[tuple[int, int, int]],
    args: argparse.Namespace,
) -> dict[tuple[int, int, int], Ratios]:
    """Measure and print one table row by row; the ratios by cell."""
    table = {}
    for N, D, K in cells:
        ratios, first_seconds, note = ratios_in_turn(make(*make_data(N, D, K)), args.rounds, args.patience)
        yardstick, *others = ratios
        if not table:
            heads = "".join(f"{other:>12}" for other in others)
            print(f"\n{title}\n{'N':>6} {'D':>4} {'K':>6} {yardstick + ' ms':>16}{heads}  quiet/all")
        figures = "".join(f"{ratios[other]:>12.2f}" for other in others)
        print(f"{N:>6} {D:>4} {K:>6} {first_seconds * 1e3:>16.1f}{figures}  {note}", flush=True)
        table[N, D, K] = ratios
    return table


def peak_mib() -> float:
    """Peak resident set since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def growth_of_peak(N: int, D: int, K: int) -> float:
    """MiB by which one search raises the peak resident set of this process; a small search comes first."""
    nearest_codes(*make_data(256, D, 64))
    latents, codebook = make_data(N, D, K)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what is resident now
    before = peak_mib()
    nearest_codes(latents, codebook)
    return peak_mib() - before


def default_allocator() -> dict[str, str]:
    """This environment without the settings of the allocator that keeps its memory."""
    return {key: value for key, value in os.environ.items() if key not in KEEPING_ALLOCATOR}


def growth_in_own_process(cell: tuple[int, int, int]) -> float:
    command = [sys.executable, __file__, "--memory-of", *map(str, cell)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=default_allocator()).stdout)


def print_memory(cells: list[tuple[int, int, int]]) -> dict[tuple[int, int, int], float]:
    print("\nExtra memory of the search, MiB (and of a dense matmul's result)")
    growth = {cell: growth_in_own_process(cell) for cell in cells}
    for (N, D, K), mib in growth.items():
        print(f"{N:>6} {D:>4} {K:>6} {mib:>16.1f} {N * K * 4 / 2**20:>12.0f}")
    return growth


def print_claim(claim: str, met: bool, numbers: str) -> None:
    print(f"{'met    ' if met else 'NOT met'}  {claim}: {numbers}")


def print_faster(what: str, table: dict[tuple[int, int, int], Ratios]) -> None:
    ratio, name, cell = min(
        (r, name, cell) for cell, row in table.items() for name, r in row.items() if name != "vqtool"
    )
    print_claim(
        f"{what} faster than both libraries in every cell", ratio > 1, f"least lead {ratio:.2f}, on {name} at {cell}"
    )


def faults_of(function: Callable[[], object]) -> int:
    """Page faults of one call, after some that let the heap grow to its size."""
    for _ in range(8):
        function()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    function()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def print_settings(threads: int) -> None:
    latents, codebook = make_data(4096, 64, 16384)
    allocator = {key: value for key, value in os.environ.items() if key in ALLOCATOR_KEYS or key.startswith("MALLOC_")}
    print(f"torch {torch.__version__}, {threads} threads, {platform.machine()}, load average {os.getloadavg()[0]:.1f}")
    print(f"allocator: {' '.join(platform.libc_ver())}, {allocator or 'default settings'}")
    print(f"page faults at (4096, 64, 16384): {faults_of(lambda: latents @ codebook.T)} by one dense matmul, ", end="")
    print(f"{faults_of(lambda: nearest_codes(latents, codebook))} by one search")


def benchmark(args: argparse.Namespace) -> None:
    """All tables with the allocator settings of this process, then the claims."""
    cells = QUICK_CELLS if args.quick else args.cells or CELLS
    print_settings(args.threads)
    with torch.no_grad():
        search = print_table("Nearest-code search, share of the dense matmul's time", search_candidates, cells, args)
        memory = print_memory(cells)
    forward = print_table("Whole quantizer, forward: time over vqtool's", forward_candidates, cells, args)
    backward = print_table("Whole quantizer, forward + backward: time over vqtool's", backward_candidates, cells, args)
    print("\nClaims")
    for cell in TARGETS.keys() & search.keys():
        share = search[cell]["vqtool"]
        claim = f"search at {cell} takes at most {TARGETS[cell]} of a dense matmul"
        print_claim(claim, share <= TARGETS[cell], f"{share:.2f}")
    claim = f"search needs at most {MEMORY_LIMIT_MIB} MiB in every cell"
    print_claim(claim, max(memory.values()) <= MEMORY_LIMIT_MIB, f"most {max(memory.values()):.1f}")
    print_faster("forward", forward)
    print_faster("forward + backward", backward)


def cell(text: str) -> tuple[int, ...]:
    """``4096x64x16384`` -> (4096, 64, 16384)."""
    return tuple(int(size) for size in text.split("x"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small cell, 3 rounds")
    parser.add_argument("--cells", type=cell, nargs="+", metavar="NxDxK", help="only these, such as 4096x64x16384")
    parser.add_argument("--allocators", action="store_true", help="run twice: default and memory-keeping allocator")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--rounds", type=int, default=15, help="quiet rounds per cell (default 15)")
    parser.add_argument("--patience", type=float, default=20.0, help="most seconds per cell (default 20)")
    parser.add_argument(
        "--memory-of", type=int, nargs=3, metavar=("N", "D", "K"), help="only print the MiB of one search"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.quick:
        args.rounds, args.patience = 3, 2.0
    if args.memory_of:
        print(growth_of_peak(*args.memory_of))
    elif args.allocators:
        again = [sys.executable, __file__, *(word for word in sys.argv[1:] if word != "--allocators")]
        for environment in (default_allocator(), default_allocator() | KEEPING_ALLOCATOR):
            subprocess.run(again, check=True, env=environment)
            print(flush=True)
    else:
        benchmark(args)


if __name__ == "__main__":
    main()
