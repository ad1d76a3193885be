"""Figures over a whole split, in float32."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...diagnostics import stats
from ...diagnostics.progress import track
from ...diagnostics.ranks import rank_and_size, sum_over_ranks
from ...diagnostics.run import RunDirectory
from ..data import Images
from ..data.opening import open_images
from ..data.views import View, view_named
from ..training.checkpoint import load_checkpoint, load_weights
from .metrics import metrics_for
from .model import VQModel, build_model
from .settings import AutoencoderConfig, autoencoder_config_of


@torch.no_grad()
def reconstruct(
    model: VQModel, view: View, images: Images, chosen: NDArray[np.int64], batch_size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The chosen images in batches: images and reconstructions (B, C, S, S) as ``view`` has them, indices (B, H, W).

    In evaluation mode and float32; the model's mode is put back at the end.
    """
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    for start in range(0, len(chosen), batch_size):
        batch = view.load(images.batch(chosen[start : start + batch_size])[0], device)
        reconstructions, output = model(batch)
        yield batch, reconstructions, output.indices
    model.train(was_training)


def evaluate_split(
    model: VQModel, images: Images, config: AutoencoderConfig, split: str
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """The evaluation of ``model`` over all of ``images`` as ``evaluation-SPLIT.json`` keeps it, and the (K,) hits.

    The images are those that the view of the run looks at.

    In a process group each rank takes its share of the images, and all get the figures of the whole.
    """
    device = next(model.parameters()).device
    view, metrics = view_named(config.data.view), metrics_for(config, device)
    K, size = model.quantize.codebook_size, max(32, config.train.batch_size)
    counts = torch.zeros(K, dtype=torch.int64, device=device)
    rank, ranks = rank_and_size()
    share = np.arange(len(images))[rank::ranks]
    batches = reconstruct(model, view, images, share, size)
    for batch, reconstructions, indices in track(f"evaluate {split}", batches, -(-len(share) // size)):
        metrics.update(batch, reconstructions)
        counts += torch.bincount(indices.flatten(), minlength=K)
    hits = sum_over_ranks(counts).cpu().numpy()
    tokens = int(hits.sum())
    return {
        "split": split,
        "images": len(images),
        **metrics.compute(),
        "codebook_size": len(hits),
        "codes_used_split": int(stats.codes_used(hits)),
        "perplexity_split": float(stats.perplexity(hits)),
        "codes_used_ceiling": stats.expected_codes_used(len(hits), tokens),
        "tokens": tokens,
        "tokens_per_code": tokens / len(hits),
        "missing": metrics.missing,
    }, hits


def evaluate_run(run: RunDirectory, split: str, checkpoint: str, device: str) -> dict[str, Any]:
    """Evaluate a checkpoint of a run over a whole split and keep the figures in ``RUN/evaluation-SPLIT.json``.

    Raises:
        InputError: The checkpoint does not exist, or is of another model.
    """
    config = autoencoder_config_of(run)
    path = run.checkpoint(checkpoint)
    state = load_checkpoint(path)
    model = build_model(config)
    load_weights(model, state["learner"]["model"], path)
    images = view_named(config.data.view).over(open_images(config.data)[split])
    figures, _ = evaluate_split(model.to(device), images, config, split)
    figures = {"checkpoint": checkpoint, "step": state["step"], **figures}
    run.write_json(run.evaluation(split), figures)
    return figures
