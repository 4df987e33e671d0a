"""Settings of the documentation build; most come from sphinx-astropy."""

import os
from importlib.metadata import version as installed_version

from sphinx_astropy.conf.v3 import *  # noqa: F401,F403
from sphinx_astropy.conf.v3 import exclude_patterns, extensions, intersphinx_mapping

project = "stingray-align"
author = "stingray-align developers"
copyright = f"2026, {author}"
release = installed_version("stingray-align")
version = ".".join(release.split(".")[:2])

# The tables in results/ are included in pages, the changes too.
exclude_patterns += ["results/*"]
html_title = f"{project} {version}"
html_show_sourcelink = False
# The pages of a package that is not Astropy's own carry neither its header nor its logo.
html_theme = "pydata_sphinx_theme"
html_theme_options = {"logo": {"text": project}, "navigation_with_keys": False}
html_logo = html_favicon = None
html_sidebars = {}

# Without the network the links into other projects' pages become plain text.
if os.environ.get("DOCS_OFFLINE"):
    intersphinx_mapping.clear()
else:
    intersphinx_mapping["stingray"] = ("https://docs.stingray.science/en/stable/", None)
    intersphinx_mapping["specutils"] = ("https://specutils.readthedocs.io/en/stable/", None)
    intersphinx_mapping["regions"] = ("https://astropy-regions.readthedocs.io/en/stable/", None)

# The default role resolves to an object where there is one and is plain code where there is none.
nitpicky = False
automodapi_inheritance_diagram = False
automodsumm_inherited_members = False
extensions.remove("sphinx.ext.inheritance_diagram")
# The gallery: every script in examples is run, and its figure shown.
extensions.append("sphinx_gallery.gen_gallery")
sphinx_gallery_conf = {
    "examples_dirs": "../examples", "gallery_dirs": "gallery", "filename_pattern": "/plot_",
    "download_all_examples": False, "show_memory": False, "min_reported_time": 1e9,
    "abort_on_example_error": True,
}
plot_formats = [("png", 150)]
plot_html_show_source_link = False
plot_html_show_formats = False


def _shorten_metadata_routing(app, what, name, obj, options, lines):
    # scikit-learn adds these methods to every estimator, with links that only its own pages have.
    if name.rpartition(".")[2] in ("set_fit_request", "set_score_request"):
        lines[:] = ["See scikit-learn's metadata routing."]


def setup(app):
    app.connect("autodoc-process-docstring", _shorten_metadata_routing)
