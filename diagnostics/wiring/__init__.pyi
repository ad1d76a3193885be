from .check import Check as Check
from .check import Skipped as Skipped
from .checks import CHECKS as CHECKS
from .linting import LintReport as LintReport
from .linting import lint as lint
