"""The monitor as a callback of the ``Trainer`` of transformers."""

from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.training_args import TrainingArguments

from ..files import replacing
from .loop_monitor import LoopMonitor

#: The state of the monitor, in a checkpoint's folder.
STATE = "codebook_monitor.pt"


class TransformersMonitor(LoopMonitor, TrainerCallback):
    """Watches the codebooks of a model while ``Trainer.train`` trains it.

        trainer = Trainer(model, args, train_dataset=data, callbacks=[TransformersMonitor("runs/mine", every=100)])

    Its state lies in the trainer's checkpoints. Where training resumes, the checkpoint is the one that
    ``TrainingArguments.resume_from_checkpoint`` names, or that of the trainer's step in ``output_dir``. See
    ``LoopMonitor`` for the arguments.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._begin(
            kwargs["model"],
            kwargs["optimizer"],
            state=_load(args, state) if state.global_step else None,
            first_rank=state.is_world_process_zero,
        )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        saved = self.state_dict()
        if state.is_world_process_zero:
            with replacing(_checkpoint(args, state) / STATE) as beside:
                torch.save(saved, beside)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._end()


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _load(args: TrainingArguments, state: TrainerState) -> dict[str, Any] | None:
    """The state in the checkpoint that training resumes from; None where it was made without a monitor."""
    named = args.resume_from_checkpoint
    folder = Path(named) if named and Path(named).is_dir() else _checkpoint(args, state)
    path = folder / STATE
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
