"""The wiring lint: is a model trained as it is meant to be? ``lint`` asks, ``CHECKS`` are its questions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
