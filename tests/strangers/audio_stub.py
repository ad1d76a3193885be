"""A place holder for torchaudio, which transformers and encodec import and no quantizer needs.

A build of it for another CUDA than torch's raises when it is imported.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType


def stand_in() -> None:
    """Put the place holder where torchaudio cannot be imported."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        holder = ModuleType("torchaudio")
        holder.__spec__ = ModuleSpec("torchaudio", None)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio"] = holder
