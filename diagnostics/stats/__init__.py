"""Statistics of codes as pure functions on arrays: what counts say of usage, and how far two sets of images differ."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
