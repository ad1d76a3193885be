import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.image import imsave

from vqtool.diagnostics.recording.records import CodebookRecord
from vqtool.diagnostics.recording.trace import TraceWriter
from vqtool.diagnostics.run import RunDirectory

NAN = np.float32(np.nan)


def dying_hits(K: int, T: int, seed: int, half_life: float, tokens: int = 2560) -> np.ndarray:
    """(T, K) hits of a codebook whose codes die one by one, some before the first record."""
    rng = np.random.default_rng(seed)
    death = rng.exponential(half_life * T, K) - 0.05 * T
    weight = rng.lognormal(0, 1.0, K) * (np.arange(T)[:, None] < death)
    weight[:, 0] = 1.0  # one code lives for ever: every window has tokens to give
    return np.stack([rng.multinomial(tokens, row / row.sum()) for row in weight])


def write_trace(folder: Path, hits: np.ndarray, *, ema: bool = False, reset: bool = False, window: int = 10) -> None:
    """A trace with the given hits (T, K) and other columns that go with them."""
    rng = np.random.default_rng(hits.sum() % 2**32)
    T, K = hits.shape
    writer = TraceWriter(folder, rows_per_part=max(K, 1 << 18))
    norm = rng.uniform(0.2, 0.6, K)
    for t in range(T):
        live = hits[t] > 0
        norm = np.where(live, norm + 0.02 * (2.5 * rng.uniform(0.7, 1.3, K) - norm), norm * (0.98 if ema else 1.0))
        pull = (live * rng.lognormal(-7, 1, K) * np.exp(-t / T)).astype(np.float32)
        writer.write(
            CodebookRecord(
                codebook=folder.name,
                step=(t + 1) * window,
                window=window,
                hits=hits[t],
                distortion=np.where(live, 0.1, NAN).astype(np.float32),
                norm=norm.astype(np.float32),
                drift=np.full(K, NAN if t == 0 else 0.01, np.float32),
                grad_norm=np.full(K, NAN) if ema else pull * np.float32(1.1),
                pull_norm=pull,
                resets=((rng.random(K) < 0.02) & ~live & reset).astype(np.int64),
            )
        )
    writer.flush()


def write_metrics(run: RunDirectory, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        level = 0.05 + 0.4 * np.exp(-3 * step / steps)
        noise = np.exp(0.1 * rng.normal(size=5))
        row = {"loss/l1": level, "loss/perceptual": 0.8 * level, "loss/quantizer": 0.1 * level}
        row |= {"quantizer/commitment": 0.04 * level, "quantizer/codebook": 0.05 * level}
        row = {key: float(value * factor) for (key, value), factor in zip(row.items(), noise, strict=True)}
        gan = (
            {"gan/generator": float(-0.2 * noise[0]), "gan/discriminator": float(noise[1])} if step > steps / 2 else {}
        )
        rows.append({"step": step, "loss/total": sum(list(row.values())[:3]), **row, **gan, "optimizer/lr": 2e-4})
        if step % (steps // 5) == 0:
            rows.append({"step": step, "validation/l1": level, "validation/codes_used_split": 300 - 100 * step / steps})
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_config(run: RunDirectory, spec: str, seed: int, K: int, steps: int) -> None:
    run.path.mkdir(parents=True)
    config = {
        "quantizer": {"spec": spec, "codebook_size": K, "dim": 8},
        "train": {"seed": seed, "steps": steps, "batch_size": 16},
        "data": {"spec": "synthetic", "image_size": 32},
    }
    run.config.write_text(yaml.safe_dump(config))


def write_evaluation(run: RunDirectory, K: int, **figures: float) -> None:
    missing = {"lpips": "no weights of the perceptual network", "rfid": "fewer than 2048 images"}
    content: dict[str, Any] = {"split": "test", "step": 100, "images": 64, "tokens": 4096, "tokens_per_code": 4096 / K}
    content |= {"codebook_size": K, "l1": 0.05, "l2": 0.004, "psnr": 24.5, "ssim": 0.81, "lpips": None, "rfid": None}
    content |= {"codes_used_split": K // 2, "perplexity_split": K / 3, "missing": missing}
    run.write_json(run.evaluation("test"), content | figures)


def write_sample(run: RunDirectory, step: int) -> None:
    run.samples.mkdir(exist_ok=True)
    image = np.random.default_rng(step).random((64, 256, 3))
    imsave(run.samples / f"reconstructions-{step}.png", image)


def write_findings(run: RunDirectory, findings: list[Mapping[str, Any]]) -> None:
    run.findings.write_text("".join(json.dumps(finding) + "\n" for finding in findings))


FINDING = {
    "check": "usage",
    "severity": "warning",
    "codebook": "quantize",
    "statement": "31 of 64 codes are dead.",
    "evidence": {"dead": 31},
    "advice": "Try ema+reset.",
    "source": "arXiv:1711.00937",
}


def write_run(path: Path, spec: str = "standard", seed: int = 0, K: int = 64, T: int = 20) -> RunDirectory:
    """A finished run with everything in it, of ``T`` records of ``K`` codes."""
    run = RunDirectory(path)
    write_config(run, spec, seed, K, 10 * T)
    run.write_json(run.environment, {"command": f"train {path.name}", "device": "cpu"})
    write_metrics(run, 10 * T, seed)
    write_trace(run.trace / "quantize", dying_hits(K, T, seed, 0.5), ema="ema" in spec, reset="reset" in spec)
    write_sample(run, 10 * T)
    write_evaluation(run, K)
    write_findings(run, [FINDING])
    done = {"steps": 10 * T, "seconds": 12.0, "device_hours_per_epoch": 0.01, "trainable_parameters": 1000}
    run.write_json(run.done, done)
    return run
