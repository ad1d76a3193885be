"""Faults of wiring that real projects had, rebuilt as tiny training set-ups, and the same set-ups without them."""


def __getattr__(name: str):
    """``BUGS`` and ``CLEAN`` when they are asked for: a rank of ``wiring.replicas`` waits for no other library."""
    if name not in ("BUGS", "CLEAN"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wiring import registry

    return getattr(registry, name)
