"""How the documentation is built."""

import re
import sys
from pathlib import Path

import skssl

sys.path.extend([str(Path(__file__).parent), str(Path(__file__).parent.parent)])  # this folder, and the benchmarks
import method_pages
import rendering

project = "skssl"
author = "the skssl developers"
copyright = "2026, the skssl developers"
release = version = skssl.__version__

extensions = [
    "mathml",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "generated/*.md"]  # what other pages include is no page
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autosummary_generate = True
autosummary_context = {"inner": method_pages.inner_members()}
autodoc_typehints = "none"  # the sections of parameters have the types
suppress_warnings = ["ref.ref"]  # what is inherited from scikit-learn refers to its own pages
highlight_language = "none"  # of blocks that name no language: commands and what is printed
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
nitpicky = False
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",  # the others take minutes: shown, not run
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "generated/backreferences",  # "Examples using ..." on the pages of the reference
    "doc_module": ("skssl",),
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,  # a page that loads scripts from other machines
    "min_reported_time": 1e9,
    "image_srcset": ["2x"],
    "capture_repr": ("_repr_html_",),
}
templates_path = ["_templates"]
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "logo": {"image_light": "_static/favicon.svg", "image_dark": "_static/favicon.svg", "text": "skssl"},
}
html_sidebars = {
    "*": [],
    "methods": ["sidebar-nav-bs"],
    "api": ["sidebar-nav-bs"],
    "tutorials": ["sidebar-nav-bs"],
    "user_guide": ["sidebar-nav-bs"],
}  # not on pages without parts
html_context = {"default_mode": "auto"}  # light or dark, as the system
html_favicon = "_static/favicon.svg"
html_title = "skssl"
html_show_sourcelink = False

rendering.render()
method_pages.render(Path(__file__).parent / "methods", rendering.RECORDED / "methods.csv")


def setup(app):
    app.connect("html-page-context", mend_links_to_docs)


def mend_links_to_docs(app, page, template, context, doctree):
    """Correct the anchors on pages of source: `viewcode` takes all objects of a file to be in one namespace."""
    if page.startswith("_modules/"):
        link = r"(/generated/([\w.]*?(\w+))\.html#)[\w.]*?\.\3(?=[.\"])"
        context["body"] = re.sub(link, r"\1\2", context["body"])
