"""Figures over a whole split, in float32."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...diagnostics import stats
from ...diagnostics.progress import track
from ...diagnostics.ranks import groups_over_ranks, rank_and_size
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
    rank, ranks = rank_and_size()
    share, dealt = np.arange(len(images))[rank::ranks], stats.deal(len(images))[rank::ranks]
    groups, seen = stats.ImageGroups.empty(K), 0
    batches = reconstruct(model, view, images, share, size)
    for batch, reconstructions, indices in track(f"evaluate {split}", batches, -(-len(share) // size)):
        metrics.update(batch, reconstructions)
        groups.add_images(indices.flatten(1).cpu().numpy(), dealt[seen : seen + len(batch)])
        seen += len(batch)
    groups = groups_over_ranks(groups, device)
    return {
        "split": split,
        "images": len(images),
        **metrics.compute(),
        **_usage_figures(stats.usage_of_groups(groups, f"the whole {split} split")),
        "missing": metrics.missing,
    }, groups.hits.sum(0)


def _usage_figures(usage: stats.Usage) -> dict[str, Any]:
    """Usage as the evaluation keeps it; ends of intervals are None where images are too few, and of 95 % elsewhere."""
    perplexity = usage.units and usage.units.perplexity
    in_use = usage.units and usage.units.in_use
    return {
        "usage": str(usage),
        "codebook_size": usage.codes,
        "codes_used_split": int(usage.used),
        "codes_used_ceiling": usage.ceiling,
        "codes_in_use_low_split": in_use and in_use.low,
        "codes_in_use_chao1_split": usage.chao1,
        "coverage_split": usage.coverage,
        "perplexity_split": usage.perplexity,
        "perplexity_corrected_split": usage.corrected,
        "perplexity_low_split": perplexity and perplexity.low,
        "perplexity_high_split": perplexity and perplexity.high,
        "tokens": usage.tokens,
        "tokens_per_code": usage.tokens / usage.codes,
    }


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
