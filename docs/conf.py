"""Sphinx: ``make documents`` builds the pages and the reference into ``build/documents``."""

from __future__ import annotations

import metamorphosis

project = "metamorphosis"
copyright = "the authors of metamorphosis"
version = release = metamorphosis.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
root_doc = "index"
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["pictures"]
templates_path: list[str] = []

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
myst_url_schemes = ["http", "https", "mailto"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "inherited-members": False, "show-inheritance": False}
