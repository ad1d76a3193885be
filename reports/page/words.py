"""Numbers as words in a sentence."""


def counted(n: int, noun: str) -> str:
    """``1 look``, ``2 looks``, ``1,000 looks``."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
