"""What `mkdocs build` cannot do by itself: formulas as MathML, without a script; files of the repository, named.

Takes Markdown and HTML of a page; gives it back changed. MkDocs calls the functions by name (`hooks` in mkdocs.yml).
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name files outside docs/, which the site does not have, instead of linking to them."""
    return _OUTSIDE.sub(_named, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas, which the extension arithmatex has found, as MathML, which browsers draw without a script."""
    return _FORMULA.sub(lambda found: _mathml(found[2], block=found[1] == "div"), content)


def _named(link: re.Match[str]) -> str:
    text, path = link[1], link[2]
    return text if path.endswith(text.strip("`")) else f"{text} (`{path}`)"


def _mathml(formula: str, block: bool) -> str:
    return convert(html.unescape(formula).strip(), display="block" if block else "inline")
