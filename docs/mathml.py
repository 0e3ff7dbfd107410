"""A Sphinx extension that renders formulas as MathML when the docs are built, so that pages load no script for them."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer, which `html_math_renderer` selects."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True}


def inline(translator: Any, node: nodes.math) -> None:
    """Write a formula of a line of text."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula in lines of its own."""
    translator.body += [translator.starttag(node, "div", CLASS="math"), tex2mathml(node.astext(), True), "</div>\n"]
    raise nodes.SkipNode
