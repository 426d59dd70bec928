"""The figures of a report: each drawn twice, as PNG on white and as SVG that takes the colours of the page.

matplotlib is asked for here only, and without pyplot: no window, no state that outlives a picture.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = ["Draw", "Palette", "Picture", "draw", "has_matplotlib"]


@dataclass(frozen=True)
class Palette:
    """Colours: of text, grid and background, and one for each model."""

    ink: str
    grid: str
    back: str
    teacher: str
    student: str
    control: str

    def of(self, model: str) -> str:
        """The colour of a model."""
        return {"teacher": self.teacher, "control": self.control}.get(model, self.student)


#: Colours that differ for colour-blind eyes as well (Okabe and Ito 2008).
_PAPER = Palette("#1f2328", "#d8dee4", "#ffffff", "#0072b2", "#d55e00", "#009e73")
_REM_PER_INCH = 7.4
#: Stand-ins, put in place of which the SVG names the page's own variables.
_PAGE = Palette("#010203", "#010204", "#010205", "#010206", "#010207", "#010208")
_VARIABLES = {
    _PAGE.ink: "var(--ink)",
    _PAGE.grid: "var(--line)",
    _PAGE.back: "var(--card)",
    _PAGE.teacher: "var(--teacher)",
    _PAGE.student: "var(--student)",
    _PAGE.control: "var(--control)",
}
Draw = Callable[["Axes", Palette], None]
_SIZE = (4.6, 3.1)  # inches: text keeps its size on a phone


@dataclass(frozen=True)
class Picture:
    """One figure.

    Attributes:
        name: Of its file, without suffix.
        caption: What it shows, in words; also for those who can't see it.
        png: The file for a model card.
        svg: For the page: one element without scripts, colours by CSS variables.
    """

    name: str
    caption: str
    png: bytes
    svg: str


def has_matplotlib() -> bool:
    """Whether pictures can be drawn."""
    return find_spec("matplotlib") is not None


def draw(name: str, caption: str, picture: Draw, size: tuple[float, float] = _SIZE) -> Picture:
    """Draws one figure.

    Args:
        name: of its file.
        caption: what it shows.
        picture: draws on axes with a palette.
        size: width and height in inches.

    Returns:
        The figure, twice.
    """
    png = _save(picture, _PAPER, size, format="png", dpi=160)
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    svg = _save(picture, _PAGE, size, format="svg", metadata=metadata).decode()
    return Picture(name, caption, png, _for_page(svg, name, size[0]))


def _save(picture: Draw, palette: Palette, size: tuple[float, float], **options: Any) -> bytes:
    from matplotlib.figure import Figure

    with _style(palette):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        picture(axes, palette)
        file = io.BytesIO()
        figure.savefig(file, **options)
    return file.getvalue()


@contextmanager
def _style(palette: Palette) -> Iterator[None]:
    from matplotlib import rc_context

    style: Any = {  # matplotlib names each of its 300 keys in the type
        "axes.edgecolor": palette.ink,
        "axes.facecolor": palette.back,
        "axes.labelcolor": palette.ink,
        "axes.titlesize": 10,
        "figure.facecolor": palette.back,
        "font.size": 9,
        "grid.color": palette.grid,
        "legend.frameon": False,
        "legend.labelcolor": palette.ink,
        "svg.fonttype": "none",  # text stays text: it can be read aloud, found and copied
        "svg.hashsalt": "distilbert_kd",  # equal figures, equal bytes
        "text.color": palette.ink,
        "text.parse_math": False,  # a class called "$" is a name and no formula
        "xtick.color": palette.ink,
        "ytick.color": palette.ink,
    }
    with rc_context(style), warnings.catch_warnings():
        # A class name in a script that matplotlib's font lacks: boxes in the PNG, but the page shows it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _for_page(svg: str, name: str, width: float) -> str:
    """The `<svg>` element alone: as wide as its place allows, text at most of the page's size, ids of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    style = f'style="max-width: {_REM_PER_INCH * width:.0f}rem"'
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*"', rf"<svg {style} \1", re.sub(r'height="[\d.]+pt"', "", svg, count=1), count=1
    )
