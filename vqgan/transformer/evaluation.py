"""Figures of a second stage over a whole split: how well codes are predicted, and how samples differ from data."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ...diagnostics.progress import track
from ...diagnostics.ranks import rank_and_size
from ...diagnostics.recording.code_use import CodeUse, PositionUse
from ...diagnostics.run import RunDirectory
from ...diagnostics.stats.gap import total_variation_interval
from ..autoencoder.metrics import SampleDistance
from ..data.opening import open_images
from ..sampling.drawing import Choice, draw_codes, known_codes, seed_of
from .likelihood import likelihood
from .model import CodeTransformer
from .settings import SamplingSettings
from .split import CodeSplit
from .tokenizer import Tokenizer
from .tokens import as_tensor
from .trained import Trained

#: Images that are sampled at once.
BATCH = 50


class CodeEvaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
        figures: As ``evaluation-SPLIT.json`` keeps them.
        codes: What ``codes-SPLIT.parquet`` keeps.
        positions: What ``positions-SPLIT.parquet`` keeps.
    """

    figures: dict[str, Any]
    codes: CodeUse
    positions: PositionUse

    def write(self, run: RunDirectory, split: str) -> None:
        """The two tables; the figures are written by whoever knows the step."""
        self.codes.save(run.codes(split))
        self.positions.save(run.positions(split))


def evaluate_run(run: RunDirectory, split: str, checkpoint: str, device: str) -> dict[str, Any]:
    """Evaluate a checkpoint of a run over a whole split; figures and tables are kept in the run folder.

    Raises:
        InputError: The checkpoint does not exist, or is of another model.
    """
    trained = Trained.load(run, checkpoint, device)
    part = trained.split(open_images(trained.config.data)[split])
    settings = trained.config.sampling
    found = evaluate_codes(trained.model, trained.frozen.first, part, trained.train_hits, settings, split)
    found.write(run, split)
    figures = {"checkpoint": checkpoint, "step": trained.step, **found.figures}
    run.write_json(run.evaluation(split), figures)
    return figures


def evaluate_codes(
    model: CodeTransformer,
    tokenizer: Tokenizer,
    split: CodeSplit,
    train_hits: NDArray[np.int64],
    settings: SamplingSettings,
    name: str,
) -> CodeEvaluation:
    """The evaluation over all of ``split``, in float32; in a process group the ranks share it, all get the whole.

    Args:
        model: The transformer.
        tokenizer: The first stage, for images of the samples.
        split: The codes of the split.
        train_hits: (K,) how often each code occurs in the training data.
        settings: How many images are sampled, and how.
        name: Name of the split.
    """
    device = tokenizer.device
    rank, ranks = rank_and_size()
    found = likelihood(
        model, split, np.arange(len(split))[rank::ranks], torch.from_numpy(np.flatnonzero(train_hits == 0)).to(device)
    )
    found.reduce()
    sampled = sample_split(model, split, train_hits, settings, device)
    distance = _distance(tokenizer, split, sampled)
    data = np.asarray(split.codes).reshape(len(split), -1)
    hits, nll = found.hits, found.nll
    drawn = _counts_by_position(sampled, found.shape)
    codes, positions = CodeUse.of(train_hits, hits, drawn, nll), PositionUse.of(hits, drawn, nll)
    missing: dict[str, str] = {}
    figures = found.figures()
    bits = figures["nll"] * data.shape[1] / math.log(2) / (3 * split.images.image_size**2)
    return CodeEvaluation(
        {
            "split": name,
            "images": len(split),
            "tokens": data.size,
            "grid": list(model.grid),
            "codebook_size": len(train_hits),
            **figures,
            "bits_per_dim": bits,
            "token_perplexity": math.exp(figures["nll"]),
            "samples": len(sampled),
            "sampling": settings.told(),
            **_gap(data, sampled.reshape(len(sampled), -1), len(train_hits), missing),
            "codes_in_train": int((codes.train > 0).sum()),
            "codes_in_split": int((codes.data > 0).sum()),
            "codes_sampled": int((codes.sampled > 0).sum()),
            "unlearned_codes": int(codes.never_learned.sum()),
            **distance.compute(),
            "missing": missing | distance.missing,
        },
        codes,
        positions,
    )


def _gap(
    data: NDArray[np.int64], sampled: NDArray[np.int64], codebook_size: int, missing: dict[str, str]
) -> dict[str, float | None]:
    """The total variation with its interval; None, and an entry in ``missing``, where one image is all there is."""
    names = [f"total_variation{part}" for part in ("", "_low", "_high", "_floor")]
    if len(data) < 2:
        missing["total_variation"] = "the split has one image: no telling how far chance alone goes"
        return dict.fromkeys(names)
    return dict(zip(names, total_variation_interval(data, sampled, codebook_size), strict=True))


def sample_split(
    model: CodeTransformer,
    split: CodeSplit,
    train_hits: NDArray[np.int64],
    settings: SamplingSettings,
    device: torch.device,
) -> NDArray[np.int64]:
    """Codes (count, h, w) under the conditions of the split's images, evenly spread; see ``SamplingSettings``."""
    rank, ranks = rank_and_size()
    rows = (np.arange(settings.count) * len(split) // settings.count)[rank::ranks]
    generator = torch.Generator(device).manual_seed(seed_of(settings.seed, rank))
    choice = Choice(known_codes(train_hits, device), settings, generator)
    made = [torch.empty(0, *model.grid, dtype=torch.int64)]  # a rank may have nothing to sample
    for start in track("sample", range(0, len(rows), BATCH), -(-len(rows) // BATCH)):
        prefix, _ = split.batch(rows[start : start + BATCH])
        made.append(draw_codes(model, prefix.to(device), choice).cpu())
    return _from_all_ranks(torch.cat(made)).numpy()


def _from_all_ranks(codes: Tensor) -> Tensor:
    if rank_and_size()[1] == 1:
        return codes
    parts: list[Any] = [None] * rank_and_size()[1]
    dist.all_gather_object(parts, codes)
    return torch.cat(parts)


def _distance(tokenizer: Tokenizer, split: CodeSplit, sampled: NDArray[np.int64]) -> SampleDistance:
    """FID between the split's images and those of the sampled codes; nothing is decoded where it cannot be had."""
    distance = SampleDistance(tokenizer.device)
    if distance.missing:
        return distance
    seen, (rank, ranks) = tokenizer.sees(split.images), rank_and_size()
    rows, codes = np.arange(len(seen))[rank::ranks], sampled[rank::ranks]
    for start in track("fid: images", range(0, len(rows), BATCH), -(-len(rows) // BATCH)):
        distance.update_real(tokenizer.picture(seen.batch(rows[start : start + BATCH])[0]))
    for start in track("fid: samples", range(0, len(codes), BATCH), -(-len(codes) // BATCH)):
        part = as_tensor(codes[start : start + BATCH]).to(tokenizer.device)
        distance.update_samples(tokenizer.decode(part))
    return distance


def _counts_by_position(codes: NDArray[np.int64], shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """(n, h, w) codes -> how often each occurs at each position, (h, w, K)."""
    h, w, K = shape
    cells = np.arange(h * w).reshape(h, w) * K + codes
    return np.bincount(cells.ravel(), minlength=h * w * K).reshape(shape)
