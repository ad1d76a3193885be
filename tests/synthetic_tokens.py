"""Runs of a second stage with planted causes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.image import imsave
from synthetic import write_findings

from vqtool.diagnostics import stats
from vqtool.diagnostics.recording.records import TokenRecord
from vqtool.diagnostics.recording.trace import TraceWriter
from vqtool.diagnostics.run import RunDirectory

NAN = np.float32(np.nan)


@dataclass(frozen=True)
class World:
    """Codes with Zipf frequencies, each at home in one place of the grid; the ids stand in random order.

    Planted: ``top`` is the most frequent code and lives in the first row of the grid only, in the data but not in the
    samples; ``unlearned`` is predicted as by its frequency; ``gap`` is sampled five times too often; ``dead`` codes are
    in no training token, the first of them is sampled 7 times.
    """

    K: int
    alive: int
    grid: tuple[int, int]
    images: int
    samples: int
    seed: int = 0

    @property
    def order(self) -> np.ndarray:
        return np.random.default_rng(self.seed).permutation(self.K)

    @property
    def top(self) -> int:
        return int(self.order[0])

    @property
    def unlearned(self) -> int:
        return int(self.order[5])

    @property
    def gap(self) -> int:
        return int(self.order[3])

    @property
    def dead(self) -> np.ndarray:
        return np.sort(self.order[self.alive :])

    def frequency(self) -> np.ndarray:
        p = np.zeros(self.K)
        p[self.order[: self.alive]] = 1 / np.arange(2, self.alive + 2)
        return p / p.sum()

    def homes(self, p: np.ndarray, *, pattern: bool) -> np.ndarray:
        """(h * w, K) probabilities of the codes at every position."""
        h, w = self.grid
        rng = np.random.default_rng(self.seed + 1)
        row, column = np.divmod(np.arange(h * w), w)
        centre = rng.random((2, self.K)) * [[h], [w]]
        apart = ((row[:, None] - centre[0]) / h) ** 2 + ((column[:, None] - centre[1]) / w) ** 2
        weight = p * (0.2 + np.exp(-6 * apart))
        weight[:, self.top] = p[self.top] * np.where(row == 0, h, 0.0) if pattern else p[self.top]
        return weight / weight.sum(1, keepdims=True)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(h * w, K) hits in the split and in the samples."""
        rng, p = np.random.default_rng(self.seed + 2), self.frequency()
        odd = p * rng.lognormal(0, 0.15, self.K)
        odd[self.gap] *= 5
        data = rng.multinomial(self.images, self.homes(p, pattern=True))
        sampled = rng.multinomial(self.samples, self.homes(odd / odd.sum(), pattern=False))
        if self.samples and len(self.dead):
            sampled[0, self.dead[0]] += 7
            sampled[0, sampled[0].argmax()] -= 7
        return data, sampled

    def nll(self) -> np.ndarray:
        """(K,) nats, below -ln p but for the unlearned code; NaN for codes that are dead."""
        rng, p = np.random.default_rng(self.seed + 3), self.frequency()
        with np.errstate(divide="ignore"):
            nll = -np.log(p) * rng.uniform(0.5, 0.9, self.K)
            nll[self.unlearned] = -np.log(p[self.unlearned]) + 0.5
        return np.where(p > 0, nll, np.nan)


def write_codes(run: RunDirectory, world: World, split: str = "test") -> dict[str, Any]:
    """Write what an evaluation leaves of the codes and positions, and return its figures."""
    p, (data, sampled), nll = world.frequency(), world.counts(), world.nll()
    train = np.random.default_rng(world.seed + 4).multinomial(50 * data.sum(), p)
    train[p > 0] = np.maximum(1, train[p > 0])
    frame = {"code": np.arange(world.K, dtype=np.int32), "train": train}
    hits, drawn = data.sum(0), sampled.sum(0)
    frame |= {"data": hits, "sampled": drawn, "nll": np.where(hits > 0, nll, np.nan).astype(np.float32)}
    pd.DataFrame(frame).to_parquet(run.codes(split))
    place, code = np.nonzero(data + sampled)
    row, column = np.divmod(place, world.grid[1])
    at = {"row": row.astype(np.int32), "column": column.astype(np.int32), "code": code.astype(np.int32)}
    at |= {"data": data[place, code], "sampled": sampled[place, code]}
    falling = nll[code] * (1.3 - 0.6 * place / len(data))
    at["nll"] = np.where(at["data"] > 0, falling, np.nan).astype(np.float32)
    pd.DataFrame(at).to_parquet(run.positions(split))
    with np.errstate(divide="ignore", invalid="ignore"):
        never = int(((hits > 0) & (train > 0) & (np.float32(nll) >= -np.log(train / train.sum()))).sum())
    variation = float(stats.total_variation(hits, drawn))
    return {
        "codes_in_train": int((train > 0).sum()),
        "codes_in_split": int((hits > 0).sum()),
        "codes_sampled": int((drawn > 0).sum()),
        "unlearned_codes": never,
        "nll": float(np.nansum(np.nan_to_num(nll) * hits) / hits.sum()),
        "total_variation": variation,
        "total_variation_low": 0.8 * variation,
        "total_variation_high": 1.1 * variation,
        "total_variation_floor": 0.2 * variation,
    }


def write_token_trace(folder: Path, world: World, T: int, tokens: int = 4096, window: int = 10) -> None:
    rng, p, final = np.random.default_rng(world.seed + 5), world.frequency(), world.nll()
    alive = p > 0
    embedding, head = rng.uniform(0.28, 0.36, world.K), rng.uniform(0.28, 0.36, world.K)
    common = np.clip(p / p.max(), 1e-3, 1)
    writer = TraceWriter(folder, rows_per_part=max(world.K, 1 << 18))
    for t in range(T):
        targets = rng.multinomial(tokens, p)
        start = np.log(world.K)
        speed = np.where(np.arange(world.K) == world.unlearned, 2, 3 + 6 * common**0.3)
        nll = final + (start - final) * np.exp(-speed * (t + 1) / T * 2) + rng.normal(0, 0.1, world.K)
        embedding = embedding * 0.999 + 0.004 * alive * common**0.3
        head = head + 0.01 * np.where(alive, common**0.3, 0.6 * np.exp(-4 * t / T))
        noise = rng.lognormal(0, 0.4, (2, world.K))
        fall = 0.3 + np.exp(-5 * t / T)
        writer.write(
            TokenRecord(
                codebook=folder.name,
                step=(t + 1) * window,
                window=window,
                targets=targets,
                nll=np.where(targets > 0, nll, NAN).astype(np.float32),
                embedding_norm=embedding.astype(np.float32),
                embedding_grad_norm=(1e-3 * noise[0] * alive * common**0.5 * fall).astype(np.float32),
                head_norm=head.astype(np.float32),
                head_grad_norm=(1e-3 * noise[1] * np.where(alive, common**0.5, 1e-4 / (t + 1)) * fall).astype(
                    np.float32
                ),
            )
        )
    writer.flush()


def write_token_metrics(run: RunDirectory, steps: int, seed: int, last: float) -> None:
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(10, steps + 1, 10):
        level = last + 3 * np.exp(-5 * step / steps)
        rows.append({"step": step, "loss/nll": level + rng.normal(0, 0.1), "optimizer/lr": 3e-4 * min(1, step / 50)})
        if step % max(10, steps // 10) == 0:
            share = float(0.3 - 0.3 * np.exp(-4 * step / steps))
            look = {"validation/nll": level + 0.1, "validation/top1": share, "validation/images": 128}
            rows.append({"step": step, **look})
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_token_config(run: RunDirectory, world: World, steps: int, **train: Any) -> None:
    run.path.mkdir(parents=True)
    config = {
        "stage": "transformer",
        "first_stage": str(run.path.parent / "first-stage"),
        "codebook_size": world.K,
        "data": {"spec": "synthetic", "image_size": 32},
        "condition": {"kind": "class"},
        "transformer": {"size": "tiny", "order": "raster", "pkeep": 0.9},
        "train": {"seed": world.seed, "steps": steps, "batch_size": 16, **train},
        "sampling": {"temperature": 1.0, "top_k": 100, "seed": world.seed},
    }
    run.config.write_text(yaml.safe_dump(config))


def write_pictures(run: RunDirectory, step: int, side: int = 32) -> None:
    run.samples.mkdir(exist_ok=True)
    rng = np.random.default_rng(step)
    coarse = rng.random((4, 8, 3))
    image = np.kron(coarse, np.ones((side, side, 1)))
    imsave(run.samples / f"samples-{step:07d}.png", image)
    imsave(run.samples / f"completions-{step:07d}.png", image[: 2 * side])


def write_evaluation(run: RunDirectory, world: World, step: int, split: str = "test", **figures: Any) -> None:
    h, w = world.grid
    content: dict[str, Any] = {"checkpoint": "last.ckpt", "step": step, "split": split, "images": world.images}
    content |= {"tokens": world.images * h * w, "grid": [h, w], "codebook_size": world.K, "samples": world.samples}
    content |= {"sampling": {"temperature": 1.0, "top_k": 100, "top_p": None, "guidance": 1.0, "seed": 0}}
    content |= write_codes(run, world, split)
    content |= {"bits_per_dim": content["nll"] * h * w / (np.log(2) * 3 * 32 * 32), "dead_mass": 1.3e-5}
    content |= {"token_perplexity": float(np.exp(content["nll"])), "top1": 0.312, "top5": 0.6, "top10": 0.721}
    content |= {"fid": None, "missing": {"fid": "fewer than 2048 images"}}
    run.write_json(run.evaluation(split), content | figures)


SMALL = World(K=64, alive=40, grid=(4, 6), images=300, samples=200)
PROBLEM = {"check": "overfit", "severity": "warning", "statement": "Validation NLL rises.", "evidence": {"nll": 3.2}}


def write_light_run(path: Path, world: World = SMALL, steps: int = 40) -> RunDirectory:
    """A finished run without trace, positions and pictures, quick to report on."""
    run = RunDirectory(path)
    write_token_config(run, world, steps)
    run.write_json(run.environment, {"command": f"train {path.name}", "device": "cpu"})
    write_evaluation(run, world, steps)
    run.positions("test").unlink()
    write_token_metrics(run, steps, world.seed, run.read_json(run.evaluation("test"))["nll"])
    write_findings(run, [PROBLEM])
    done = {"steps": steps, "seconds": 12.0, "device_hours_per_epoch": 0.01, "trainable_parameters": 1000}
    run.write_json(run.done, done)
    return run


def write_token_run(path: Path, world: World = SMALL, T: int = 20) -> RunDirectory:
    """A finished run of a transformer with everything in it."""
    run = write_light_run(path, world, 10 * T)
    write_codes(run, world)
    write_token_trace(run.trace / "tokens", world, T)
    write_pictures(run, 10 * T)
    return run
