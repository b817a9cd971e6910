"""The report: one HTML file that holds everything a record says, made to be read.

It needs nothing but the record: no model, no network, no script. Text from the model is escaped in
one place (:mod:`kompakt.escaping` and the template's autoescape); figures are drawn here as SVG.

Size: under 300 KB for 100 sites, under 2 MB for 2,000.
"""

from kompakt.report.messages import LANGUAGES
from kompakt.report.render import render, write_report

__all__ = ["LANGUAGES", "render", "write_report"]
