"""The HTML report: page, figures, and the sections of each job."""

from fedens.report.page import ReportContent, ReportFigure, ReportTable, write_report

__all__ = ["ReportContent", "ReportFigure", "ReportTable", "write_report"]
