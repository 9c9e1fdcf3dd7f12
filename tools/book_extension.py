"""A Sphinx extension for this book's site.

Equations keep the numbers that they bring along: Sphinx wraps an equation of several lines in
`split`, inside which MathJax refuses a `\\tag`. And pages load no script that could fetch anything:
Jupyter Book adds thebe, which runs cells on a server, to every page.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def keep_tags(app: Sphinx, doctree: nodes.document) -> None:
    """Hand a tagged equation to MathJax as it stands, in an `equation` environment."""
    for node in doctree.findall(nodes.math_block):
        text = node.astext().strip()
        if "\\tag{" in text and not text.startswith("\\begin{equation"):
            node.children = [nodes.Text(f"\\begin{{equation}}\n{text}\n\\end{{equation}}")]
            node["nowrap"] = True


def drop_scripts(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Remove thebe's script, styles and address, and scripts that stand there twice."""
    for files in ("script_files", "css_files"):
        context[files] = [
            file for file in dict.fromkeys(context[files]) if "thebe" not in str(file).lower()
        ]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", keep_tags)
    app.connect("html-page-context", drop_scripts, priority=999)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
