"""The one HTML renderer, and the pages that show a run to a person."""

from flexreward.report.evals.compare import write_compare
from flexreward.report.render import CONTENT_SECURITY_POLICY, render_page
from flexreward.report.run import report_html, write_report

__all__ = ["CONTENT_SECURITY_POLICY", "render_page", "report_html", "write_compare", "write_report"]
