"""Figures, tables and one page from what runs left on disk; no model, no torch."""

from .comparison.quantizers_table import comparison
from .page.tables import write_table
from .report import write_report

__all__ = ["comparison", "write_report", "write_table"]
