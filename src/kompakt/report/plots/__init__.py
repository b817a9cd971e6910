"""Figures as inline SVG: numbers and label texts in, markup out; no language, no record."""
