from .check import Check as Check
from .check import Skipped as Skipped
from .checks import CHECKS as CHECKS
from .linting import lint as lint
from .report import LintReport as LintReport
