"""The monitor as a callback of Lightning's ``Trainer``."""

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .loop_monitor import LoopMonitor

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback


def callback_bases() -> list[type]:
    """``lightning`` and ``pytorch_lightning`` each have a ``Callback``: those of them that are installed.

    Raises:
        ModuleNotFoundError: Neither is.
    """
    found = []
    for package in ("lightning.pytorch", "pytorch_lightning"):
        with suppress(ModuleNotFoundError):
            found.append(import_module(f"{package}.callbacks").Callback)
    if not found:
        raise ModuleNotFoundError("LightningMonitor needs lightning or pytorch_lightning; neither is installed")
    return found


if not TYPE_CHECKING:

    class Callback(*callback_bases()):
        """A callback in the eyes of either package."""


class LightningMonitor(LoopMonitor, Callback):
    """Watches the codebooks of a ``LightningModule`` while it is fitted, with automatic or manual optimization.

        trainer = Trainer(callbacks=[LightningMonitor("runs/mine", every=100)])

    A trainer of ``lightning`` takes it, and so does one of ``pytorch_lightning``. With several optimizers the steps of
    the first are counted. See ``LoopMonitor`` for the arguments.
    """

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._begin(
            pl_module,
            trainer.optimizers,
            state=self._state if trainer.global_step else None,
            first_rank=trainer.is_global_zero,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
        )

    def on_train_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._end()

    def on_exception(self, trainer: "Trainer", pl_module: "LightningModule", exception: BaseException) -> None:
        self._break_off()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict
