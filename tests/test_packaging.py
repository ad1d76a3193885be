import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import vqtool
from vqtool import diagnostics

ROOT = Path(str(vqtool.__file__)).parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = SETTINGS["tool"]["setuptools"]
ROOMS = ("diagnostics", "vqgan", "reports", "experiments", "commands")
BELOW = {
    "diagnostics": set(),
    "vqgan": {"diagnostics"},
    "reports": {"diagnostics"},
    "experiments": {"vqgan", "diagnostics"},
    "commands": {"diagnostics", "vqgan", "reports", "experiments"},
    "cli": {"commands", "diagnostics"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""What each room and each file at the top may import besides itself."""


def modules() -> dict[str, Path]:
    """The files of the package by their dotted names; a package's own file by the package's name."""
    paths = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(name: str, path: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import in a file, also within functions, with the dotted names that it may reach."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    stub = path.with_suffix(".pyi")  # what a lazy package hands on
    text = path.read_text(encoding="utf-8") + (stub.read_text(encoding="utf-8") if stub.exists() else "")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = [".", *package][: len(package) + 2 - node.level] if node.level else []
            base = ".".join([*above[1:], *([node.module] if node.module else [])])
            yield from ((node, f"{base}.{alias.name}".lstrip(".")) for alias in node.names)


def own_imports(name: str, path: Path) -> set[str]:
    """The modules of ours that a file imports: `from .x import y` is x.y where that is a module, else x."""
    known, found = modules(), set()
    for node, target in imports(name, path):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.add(target if target in known else target.rpartition(".")[0])
    return found


def test_the_tree_is_read_as_it_is():
    assert own_imports("vqgan.autoencoder.model", ROOT / "vqgan/autoencoder/model.py") == {
        "vqgan.autoencoder.networks",
        "vqgan.autoencoder.settings",
        "vqgan.data.views",
        "vqgan.quantizers",
        "vqgan.quantizers.settings",
        "vqgan.training.randomness",
    }
    assert {"diagnostics.stats", "diagnostics", "vqgan.autoencoder.learner"} <= own_imports(
        "vqgan.autoencoder.stage", ROOT / "vqgan/autoencoder/stage.py"
    )
    assert "diagnostics.errors" in own_imports("vqgan.data.folder", ROOT / "vqgan/data/folder.py")
    assert own_imports("diagnostics", ROOT / "diagnostics/__init__.py") >= {
        "diagnostics.recording.codebook_monitor",
        "diagnostics.probes",
    }


@pytest.mark.parametrize("name", modules())
def test_imports_never_run_up_a_floor(name):
    home = name.partition(".")[0]
    for target in own_imports(name, modules()[name]):
        assert target in modules(), f"{name} imports {target}, which is not there"
        assert target.partition(".")[0] in BELOW[home] | {home}


def test_no_modules_import_each_other_in_a_loop():
    graph = {name: own_imports(name, path) for name, path in modules().items()}
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph


@pytest.mark.parametrize("name", modules())
def test_the_package_imports_itself_relatively_and_never_its_tests(name):
    for node, target in imports(name, modules()[name]):
        if isinstance(node, ast.Import) or not node.level:
            assert target.partition(".")[0] not in ("vqtool", "tests", "benchmarks", *ROOMS, "cli")


HEAVY = {"lpips", "torchvision", "matplotlib", "pandas", "lightning_fabric", "torchmetrics", "tensorboard", "scipy"}
HEAVY |= {"lightning", "pytorch_lightning", "transformers", "accelerate"}


def loaded_by(script: str) -> set[str]:
    """The modules that are loaded when a script has run."""
    script = f"{script}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_instrument_pulls_in_torch_and_nothing_of_the_heavy_rest():
    loaded = loaded_by("from vqtool.diagnostics import CodebookMonitor, TensorBoardSink, TokenMonitor, TraceSink")
    assert "torch" in loaded
    assert "vqtool.diagnostics.recording.codebook_monitor" in loaded
    assert not loaded & HEAVY
    assert not {name for name in loaded if name.startswith(("vqtool.vqgan", "vqtool.reports", "vqtool.experiments"))}


@pytest.mark.parametrize(
    "script",
    [
        "import vqtool.diagnostics",
        "from vqtool.diagnostics import CodebookTrace, Finding, RunDirectory, TokenTrace, find_runs, stats\n"
        "stats.perplexity([1, 2])",
        "from vqtool.experiments.recipes import RECIPES",
        "import vqtool.reports",
        "import vqtool.cli",
    ],
)
def test_who_only_reads_does_not_wait_for_torch(script):
    assert "torch" not in loaded_by(script)


@pytest.mark.parametrize("face", [diagnostics, diagnostics.stats], ids=lambda face: face.__name__)
def test_every_name_of_a_face_is_there(face):
    for name in face.__all__:
        assert getattr(face, name) is not None
    assert {"InputError"} | {name for name in diagnostics.__all__ if name.startswith("Codebook")} <= {*dir(diagnostics)}


def test_the_packages_are_those_of_the_tree():
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
    names = {".".join(("vqtool", *folder.relative_to(ROOT).parts)) for folder in folders}
    assert sorted(SETUPTOOLS["packages"]) == sorted(names | {"vqtool"})


def test_every_data_file_of_a_package_is_named_and_there():
    named = set()
    for package, patterns in SETUPTOOLS["package-data"].items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            found = list(folder.glob(pattern))
            assert found, f"{pattern} of {package} is not there"
            named |= set(found)
    others = {path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()}
    assert {path for path in others if path.suffix not in (".py", ".pyc")} <= named


def test_the_command_leads_to_the_door():
    assert SETTINGS["project"]["scripts"] == {"vqtool": "vqtool.cli:main"}
    assert SETTINGS["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", vqtool.__version__)


OUTSIDE = {
    ".git",
    ".venv",
    "build",
    "dist",
    "runs",
    "__pycache__",
    ".pytest_cache",
    ".ruff_cache",
    "shared",
    "vqtool.egg-info",
}


def project_files() -> Iterator[Path]:
    for place, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in OUTSIDE]
        yield from (Path(place, name) for name in names if name not in OUTSIDE)


def test_no_file_names_a_place_on_a_machine_or_a_registry():
    # Written so that the patterns do not find themselves.
    place = re.compile(r"(?<![\w./~])/(?:hom[e]|roo[t]|User[s]|wor[k]|mn[t]|workspac[e])/\w|[A-Z]:\\\\?User[s]")
    registry = re.compile(r"py[p]i\.org|pythonhoste[d]|index[-_]ur[l]|dev[p]i|artifactor[y]|nexu[s]/|trusted-hos[t]")
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # an image
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            assert not place.search(line), f"{path.relative_to(ROOT)}:{number}: {line}"
            assert not registry.search(line), f"{path.relative_to(ROOT)}:{number}: {line}"


@pytest.mark.slow
def test_a_wheel_holds_the_package_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*OUTSIDE))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        "dist",
    ]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (source / "dist").glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {str(Path("vqtool", path.relative_to(ROOT))) for path in modules().values()}
    data = {"py.typed", "reports/page/page.html"}
    data |= {f"diagnostics/{room}__init__.pyi" for room in ("", "stats/", "wiring/")}
    assert names == files | {f"vqtool/{path}" for path in data}
    assert wheel.name == f"vqtool-{vqtool.__version__}-py3-none-any.whl"
