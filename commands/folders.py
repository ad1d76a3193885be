"""The folders that commands read and write: which one is meant, and whether it will do."""

import os
from datetime import datetime
from pathlib import Path

RUNS = Path("runs")


def new_folder(name: str | None) -> Path:
    """A folder under ``runs/`` that is not there yet, named after the time and what is run."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return RUNS / f"{stamp}-{(name or 'standard').replace(':', ',')}"


def newest(folder: Path) -> Path:
    """The run or folder of runs in ``folder`` that was begun last."""
    from ..diagnostics.errors import InputError

    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if not found:
        raise InputError(f"no runs under {folder}/: name a folder, or make a run with `vqtool train`")
    return max(found, key=lambda path: path.stat().st_mtime)


def check_folder(folder: Path, resume: bool, *, both: bool) -> None:
    """Refuse a run folder that cannot be begun, or gone on with.

    Raises:
        InputError: There is nothing to go on with, the folder holds something, or it cannot be written.
    """
    from ..diagnostics.errors import InputError
    from ..diagnostics.run import RunDirectory

    if resume and not folder.is_dir():
        raise InputError(f"nothing to resume: there is no folder {folder}")
    if resume and not both and any(folder.iterdir()):
        RunDirectory(folder).read_config()
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"run folder {folder} exists: choose another --out, or add --resume to go on with it")
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise InputError(f"run folder {folder} cannot be written: {nearest} is not a folder that takes files")
