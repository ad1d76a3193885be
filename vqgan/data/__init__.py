"""Images: opened by a spec, decoded once, memory-mapped, and handed out as batches of bytes."""

from .batches import Batches
from .images import DecodeReport, Images, normalize
from .opening import open_data
from .source import SPLITS

__all__ = ["SPLITS", "Batches", "DecodeReport", "Images", "normalize", "open_data"]
