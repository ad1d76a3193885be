"""transformers imports torchaudio where it is installed; one that was built for another CUDA than torch's raises."""

import sys

try:
    import torchaudio  # noqa: F401
except (ImportError, OSError, RuntimeError):
    sys.modules["torchaudio"] = None
