"""A Sphinx extension: let an equation be numbered by its own `\\tag`.

Sphinx wraps an equation of several lines in `split`, inside which MathJax refuses a tag.
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


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", keep_tags)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
