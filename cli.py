"""The door: the ``vqtool`` command. Each command has a file in ``commands``; what is heavy is imported as it runs."""

import sys

import typer

from .commands.ablate import ablate
from .commands.evaluate import evaluate
from .commands.explain import explain
from .commands.lint import lint
from .commands.measure import measure
from .commands.options import in_options
from .commands.recipes import recipes
from .commands.report import report
from .commands.sample import sample
from .commands.settings import settings
from .commands.train import train

app = typer.Typer(
    name="vqtool",
    help="Watch the codebook of a vector-quantized model live and die, and compare what keeps it alive.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
for command in (train, ablate, report, evaluate, measure, lint, explain, sample, recipes, settings):
    app.command()(command)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 130 interrupted."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except typer.exceptions.TyperException as error:
        code = _complain(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _complain("interrupted", 130)
    except (ValueError, RuntimeError) as error:
        from .diagnostics.errors import InputError, RunFailedError

        if not isinstance(error, InputError | RunFailedError):
            raise
        code = _complain(in_options(error), 2) if isinstance(error, InputError) else _complain(str(error), 1)
    sys.exit(code)


def _complain(line: str, code: int) -> int:
    print(f"vqtool: {line}", file=sys.stderr)
    return code
