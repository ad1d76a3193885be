"""What it costs to draw a large trace: seconds and peak memory of `vqtool report`.

    python benchmarks/report.py [--codebook-size 16384] [--records 2000]

Makes a run folder with a synthetic trace (codes die at random times, hits are Poisson) in a temporary folder and writes
its report in this process. The claim: under 60 s and under 4 GiB at the default size.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from vqtool.diagnostics.recording.records import CodebookRecord
from vqtool.diagnostics.recording.trace import TraceWriter
from vqtool.diagnostics.run import RunDirectory
from vqtool.reports import write_report
from vqtool.vqgan.autoencoder.settings import AutoencoderConfig


def write_run(folder: Path, codebook_size: int, records: int) -> RunDirectory:
    """A run folder with nothing but a config and a trace."""
    run = RunDirectory(folder)
    run.path.mkdir(parents=True)
    run.config.write_text(AutoencoderConfig().to_yaml())
    rng = np.random.default_rng(0)
    death = rng.integers(1, 2 * records, codebook_size)
    norm = rng.random(codebook_size, np.float32)
    writer = TraceWriter(run.trace / "quantize")
    for record in range(records):
        alive = death > record
        noise = rng.random(codebook_size, np.float32)
        writer.write(
            CodebookRecord(
                codebook="quantize",
                step=100 * (record + 1),
                window=100,
                hits=rng.poisson(20, codebook_size) * alive,
                distortion=np.where(alive, noise, np.nan).astype(np.float32),
                norm=norm + np.float32(record / records) * alive,
                drift=noise * alive,
                grad_norm=noise * alive * np.float32(1e-3),
                pull_norm=noise * alive * np.float32(1e-3),
                resets=np.zeros(codebook_size, np.int64),
            )
        )
    writer.flush()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codebook-size", type=int, default=16_384)
    parser.add_argument("--records", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "run", arguments.codebook_size, arguments.records)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        began = time.perf_counter()
        page = write_report(run.path)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"K {arguments.codebook_size:,}, {arguments.records:,} records: {seconds:.1f} s")
        size = page.stat().st_size / 2**20
        print(f"peak memory {peak:.2f} GiB (before the report {before:.2f} GiB), page {size:.2f} MiB")
        print("claim (60 s, 4 GiB):", "met" if seconds < 60 and peak < 4 else "not met")


if __name__ == "__main__":
    main()
