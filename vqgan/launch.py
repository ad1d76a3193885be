"""From settings to a run, and from a run to its figures: the places where the stages part ways."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from ..diagnostics import RunDirectory
from ..diagnostics.errors import unknown
from .autoencoder import evaluation as first
from .autoencoder.settings import AutoencoderConfig
from .autoencoder.stage import AutoencoderStage
from .data import SPLITS
from .training.devices import available_device, open_fabric
from .training.settings import RunConfig
from .training.stage import Stage
from .training.trainer import Outcome, Trainer
from .transformer import evaluation as second
from .transformer.settings import TransformerConfig
from .transformer.stage import TransformerStage


def train(config: RunConfig, folder: Path, resume: bool = False) -> Outcome:
    """Train a stage into ``folder``.

    Args:
        config: The settings; they are written to ``folder/config.yaml``, which alone repeats the run.
        folder: The run folder: new, or that of the run to resume.
        resume: Go on from the last checkpoint in ``folder``; where there is none, from the start.

    Returns:
        "done", or "interrupted" when SIGINT or SIGTERM stopped the run after a step and a checkpoint.

    Raises:
        InputError: Something in the settings, the data or the folder is wrong.
        RunFailedError: A loss was not finite; a checkpoint and a finding tell more.
    """
    fabric = open_fabric(config.train)
    return fabric.launch(_train, config, folder, resume)  # type: ignore[arg-type]


def evaluate(run: RunDirectory, split: str, checkpoint: str = "last", device: str = "auto") -> dict[str, Any]:
    """Evaluate a checkpoint of a run over a whole split and keep the figures in ``RUN/evaluation-SPLIT.json``.

    Raises:
        InputError: The run, the split, the checkpoint or the device does not exist, or the checkpoint is of another
            model.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    evaluate_run = {"vqgan": first.evaluate_run, "transformer": second.evaluate_run}[run.stage]
    return evaluate_run(run, split, checkpoint, available_device(device))


def _train(fabric: Fabric, config: RunConfig, folder: Path, resume: bool) -> Outcome:
    torch.manual_seed(config.train.seed + fabric.global_rank)
    run = RunDirectory(folder)
    outcome = Trainer(fabric, config, _stage(fabric, config, run), run, resume).run()
    if fabric.world_size > 1:
        fabric.barrier()  # a rank that leaves while the group's threads are at work is aborted
        dist.destroy_process_group()
    return outcome


def _stage(fabric: Fabric, config: RunConfig, run: RunDirectory) -> Stage:
    match config:
        case TransformerConfig():
            return TransformerStage(fabric, config, run)
        case AutoencoderConfig():
            return AutoencoderStage(fabric, config)
    raise TypeError(f"no stage has settings of type {type(config).__name__}")
