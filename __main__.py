"""``python -m vqtool`` is the ``vqtool`` command."""

from .cli import main

if __name__ == "__main__":
    main()
