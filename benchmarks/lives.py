"""What life histories cost: seconds and memory to read those of a long trace of a large codebook.

    python benchmarks/lives.py [--codes 16384] [--records 1000]

The trace: 3 in 1,000 codes die in every record, and every tenth record resets half of the dead ones.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from vqtool.diagnostics import read_life_histories, stats
from vqtool.diagnostics.recording.records import CodebookRecord
from vqtool.diagnostics.recording.trace import TraceWriter


def write(folder: Path, codes: int, records: int) -> None:
    rng, writer = np.random.default_rng(0), TraceWriter(folder)
    alive, nothing = rng.random(codes) < 0.7, np.full(codes, np.nan, np.float32)
    for t in range(1, records + 1):
        alive &= rng.random(codes) > 0.003
        hits = np.where(alive, rng.poisson(10, codes), 0)
        resets = (~alive & (rng.random(codes) < 0.5) & (t % 10 == 5)).astype(np.float32)
        alive |= resets > 0
        columns = dict.fromkeys(CodebookRecord.columns(), nothing) | {"hits": hits, "resets": resets}
        writer.write(CodebookRecord(folder.name, 10 * t, 10, **columns))
    writer.flush()


def peak() -> float:
    """The most memory that the process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--codes", type=int, default=16_384)
    parser.add_argument("--records", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "quantize", options.codes, options.records)
        before, start = peak(), time.perf_counter()
        histories = read_life_histories(Path(folder) / "quantize")
        read = time.perf_counter() - start
        print(f"{options.records:,} records of {options.codes:,} codes: {len(histories.lives.code):,} lives")
        print(f"read in {read:.1f} s, with {peak() - before:.0f} MB more than writing took")
        start = time.perf_counter()
        (after,) = stats.alive_after(histories.durations("reset"), [100])
        took = time.perf_counter() - start
        print(f"{after.share:.1%} of {after.lives:,} resets go on after 100 steps, in {took:.2f} s")


if __name__ == "__main__":
    main()
