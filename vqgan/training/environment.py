"""What ran where."""

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("vqtool", "torch", "torchvision", "lightning-fabric", "lpips", "torchmetrics", "numpy", "pyarrow")


def environment(device: torch.device, world_size: int) -> dict[str, Any]:
    """What ran where: for ``environment.json``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": shlex.join(["vqtool", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _git_commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "world_size": world_size,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the checkout that vqtool runs from, with ``-dirty`` where it was changed; None for an installed one."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
