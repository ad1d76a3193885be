"""Figures, tables and one page from what runs left on disk; no model, no torch."""

from .report import write_report
from .tables import comparison, write_table

__all__ = ["comparison", "write_report", "write_table"]
