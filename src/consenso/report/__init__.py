"""Tables → one self-contained HTML page, a Markdown file, and exports."""

from consenso.report.argilla import export_argilla
from consenso.report.combined import write_combined_report
from consenso.report.earlier_files import export_earlier
from consenso.report.export import export_tables
from consenso.report.label_studio import export_label_studio
from consenso.report.settings import ReportSettings
from consenso.report.writing import write_report

__all__ = [
    "ReportSettings",
    "export_argilla",
    "export_earlier",
    "export_label_studio",
    "export_tables",
    "write_combined_report",
    "write_report",
]
