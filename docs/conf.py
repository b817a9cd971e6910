"""Sphinx configuration. The reference pages are generated from the code before each build."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402

from kompakt import __version__  # noqa: E402

generate.write_reference(HERE / "generated")

project = "kompakt"
author = "the kompakt developers"
copyright = "the kompakt developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Reference"]
add_module_names = False

html_theme = "furo"
html_title = f"kompakt {release}"
html_extra_path = ["llms.txt"]
html_copy_source = False
