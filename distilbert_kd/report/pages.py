"""Pages from templates. Everything that is put in is escaped, except figures that this package drew."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


__all__ = ["render_page"]


def render_page(template: str, **content: Any) -> str:
    """Fills a template.

    Args:
        template: its name in `templates/`.
        **content: what it shows.

    Returns:
        The page, one file that asks the network for nothing.
    """
    environment = Environment(
        loader=PackageLoader("distilbert_kd.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # matplotlib escaped the texts in its SVG.
    environment.filters["svg"] = lambda picture: Markup(picture.svg)
    return environment.get_template(template).render(**content)
