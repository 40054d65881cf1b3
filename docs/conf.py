"""Sphinx: `sphinx-build -c docs -W --keep-going -j 2 . build/docs`, from the root of the repository.

The root is the source folder, so that links between the pages, README.md and CONTRIBUTING.md work in the repository and
in the site alike.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from robustperf import __version__  # noqa: E402

project = "robustperf"
author = "the authors of robustperf"
release = version = __version__
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md",
                    "benchmarks/gpu/README.md", "benchmarks/results/nvidia-h200/*/gpu.md", "docs/**.md"]  # fmt: skip
exclude_patterns = ["build", "dist", "prebuilt", "runs", ".*"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
suppress_warnings = ["ref.python"]  # of an attribute that several classes have

# Markdown
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Tutorials: text notebooks, executed by each build in a folder that is removed afterwards.
nb_execution_mode = "auto"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_show_tb = True
nb_merge_streams = True

# The API: every name of a package's `__all__`, from its docstring.
default_role = "py:obj"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False

html_theme = "furo"
html_title = "robustperf"
html_extra_path = ["_extra"]
html_copy_source = False
html_show_copyright = False


def _as_rst(app, what, name, obj, options, lines):
    """Docstrings are plain text: `code`, examples after >>>, and indented code after a colon. The rest is escaped where
    reStructuredText would read it as markup. Runs before napoleon."""
    code = None  # the indentation of the line before the block of code that the line is in
    example = False  # in one, with what it prints, which a blank line ends
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if code is not None and line.strip() and indent <= code:
            code = None
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if code is not None or example:
            continue
        parts = re.split(r"(`[^`]*`)", line)
        line = "".join(
            part if at % 2 else re.sub(r"(\\|\*|\||_(?=\W|$))", r"\\\1", part) for at, part in enumerate(parts)
        )
        following = lines[number + 2] if number + 2 < len(lines) and not lines[number + 1].strip() else ""
        if line.endswith(":") and len(following) - len(following.lstrip()) > indent:
            line, code = line + ":", indent
        lines[number] = line


def _skip(app, what, name, obj, skip, options):
    """scikit-learn's methods for metadata are not ours."""
    return True if re.fullmatch(r"set_\w+_request|get_metadata_routing", name) else None


def setup(app):
    app.connect("autodoc-process-docstring", _as_rst, priority=100)
    app.connect("autodoc-skip-member", _skip)
