"""Common parts of plots: canvas, style, labels, and SVG that can be embedded in a page.

The output is deterministic. Colours are the page's CSS variables, for light and dark mode; text stays text, so that
any script is drawn with the reader's fonts. The room for labels is estimated here instead of measured with matplotlib's
font, which lacks Hangul and kana; moreover, installed fonts must not change the output.
"""

import dataclasses
import functools
import hashlib
import io
import json
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

# After Okabe & Ito (2008), without black and yellow: distinguishable with colour blindness, on light and dark pages.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7686", "#6a51a3")
INK, SOFT, GRID, PAPER = "#1c2331", "#5b6577", "#dfe3eb", "#fefefe"
WIDTH = 9.2  # inches
NARROW = 4.4  # inches; on a phone, the plot's letters are then as large as the page's small print
FONT, SMALL = 9.0, 8.0  # points
_TITLE = 0.52  # inches from the axes to the middle of the y axis's title

_VARIABLES = {
    INK: "ink",
    SOFT: "soft",
    GRID: "line",
    PAPER: "paper",
    **{colour: f"c{i}" for i, colour in enumerate(COLOURS)},
}
_SETTINGS: "dict[RcKeyType, Any]" = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kanana",
    "text.parse_math": False,
    "font.size": FONT,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


def inches(text: str) -> float:
    """Estimated width of a label, in inches: 1 em per wide character (Hangul, kana, Han), 0.58 em per other one."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.58 for c in text) * FONT / 72


def short(label: str) -> str:
    """Shortens a label to one line of at most 34 characters."""
    label = " ".join(str(label).split())
    return label if len(label) <= 34 else label[:33] + "…"


def compact(value: float, digits: int = 4) -> str:
    """Formats a number compactly: 1500 → 1.5k, 2e6 → 2M, B for 1e9, T for 1e12; others with up to `digits` digits."""
    size = abs(value)
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if limit <= size < 1e16:
            return f"{value / limit:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def _apart(values: Sequence[float]) -> int:
    """The number of digits, from 4 to 12, with which different values are written differently."""
    count = len(set(values))
    return next((digits for digits in range(4, 12) if len({compact(v, digits) for v in values}) == count), 12)


def number(value: float, digits: int) -> str:
    """Formats a number: large ones with thousands separators, others with `digits` significant digits."""
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def scale(axes: "Axes", direction: str, log: bool) -> None:
    """Sets an axis's scale and ticks; call it after everything is drawn, since it depends on the limits."""
    from matplotlib import ticker

    axis = getattr(axes, f"{direction}axis")
    if log:
        getattr(axes, f"set_{direction}scale")("log")
        low, high = sorted(getattr(axes, f"get_{direction}lim")())
        if high > 300 * low:
            axis.set_major_locator(ticker.LogLocator())
        elif high > 5 * low:
            axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
        else:  # a short logarithmic axis, which may contain one power of ten or none
            axis.set_major_locator(ticker.MaxNLocator(5))
        axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: compact(value, _apart(_shown(axis)))))


def _shown(axis: Any) -> list[float]:
    """Ticks within the limits of an axis, which for a nearly constant line differ only in late digits."""
    low, high = sorted(axis.get_view_interval())
    return [float(at) for at in axis.get_majorticklocs() if low <= at <= high]


def wide_of(axes: "Axes") -> float:
    """Width of the whole plot, in inches."""
    return float(axes.figure.bbox.width / axes.figure.dpi)


def end_labels(axes: "Axes", ends: Sequence[tuple[str, float | None, str]], height: float) -> None:
    """Labels right of the lines' ends, pushed apart so that none covers another.

    Args:
      ends: label, y and colour of each line; a line whose y is None has no label.
    """
    seen = [(label, value, colour) for label, value, colour in ends if value is not None]
    if not seen:
        return
    inverse = axes.transAxes.inverted()
    at = [float(inverse.transform(axes.transData.transform((axes.get_xlim()[1], v)))[1]) for _, v, _ in seen]
    order = sorted(range(len(seen)), key=lambda i: at[i])
    gap = 1.25 * FONT / 72 / (axes.get_position().height * height)
    places = [at[i] for i in order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places[-1] = min(places[-1], max(1.0, gap * (len(places) - 1)))
    for i in reversed(range(len(places) - 1)):
        places[i] = min(places[i], places[i + 1] - gap)
    inch = 1 / (axes.get_position().width * wide_of(axes))
    for i, place in zip(order, places):
        label, _, colour = seen[i]
        axes.plot([1.0, 1 + 0.13 * inch], [at[i], place], transform=axes.transAxes, color=colour, linewidth=1.2,
                  clip_on=False, scalex=False, scaley=False)  # fmt: skip
        axes.text(1 + 0.17 * inch, place, label, transform=axes.transAxes, va="center", color=INK)


def legend_rows(names: Sequence[str], room: float = WIDTH) -> list[list[int]]:
    """Indices of the names, row by row, with as many per row as fit into `room` inches."""
    rows: list[list[int]] = []
    used = math.inf
    for i, name in enumerate(names):
        width = inches(short(name)) + 0.38
        if used + width > room - 0.4:
            rows.append([])
            used = 0.0
        rows[-1].append(i)
        used += width
    return rows


# Not matplotlib's own legend, which is laid out with the widths of its font.
def legend(axes: "Axes", rows: Sequence[Sequence[int]], names: Sequence[str], height: float) -> None:
    from matplotlib.patches import Rectangle

    wide = wide_of(axes)
    for r, row in enumerate(rows):
        at = 0.15
        for i in row:
            y = 0.19 * (len(rows) - 1 - r) + 0.1
            box = Rectangle((at / wide, (y - 0.045) / height), 0.13 / wide, 0.1 / height, color=COLOURS[i % len(COLOURS)],
                            alpha=1.0 if i < len(COLOURS) else 0.5, linewidth=0)  # fmt: skip
            axes.figure.add_artist(box)
            axes.figure.text((at + 0.19) / wide, y / height, short(names[i]), va="center", color=INK)
            at += inches(short(names[i])) + 0.38


Arguments = ParamSpec("Arguments")


def drawn_once(figure: Callable[Arguments, str], most: int = 256) -> Callable[Arguments, str]:
    """Caches the figures of a function, since a run's report is written after every stage and most are unchanged.

    Args:
      figure: draws an `<svg>` element; its arguments are JSON values, sequences, arrays or dataclasses of these.
      most: number of figures to keep, about 20 kB each.
    """
    kept: dict[str, str] = {}

    @functools.wraps(figure)
    def found(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        key = json.dumps([args, kwargs], default=_plain)
        if key not in kept:
            if len(kept) == most:
                kept.pop(next(iter(kept)))
            kept[key] = figure(*args, **kwargs)
        return kept[key]

    return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) else value.tolist()


def _numbers(axis: Any) -> list[str]:
    """The labels of an axis's ticks."""
    written = axis.get_major_formatter()
    return [written(value, place) for place, value in enumerate(_shown(axis))]


def draw(
    paint: "Callable[[Axes], None]",
    height: float,
    x: str,
    y: str,
    *,
    left: float,
    right: float,
    top: float = 0.12,
    bottom: float = 0.5,
    width: float = WIDTH,
) -> str:
    """Calls `paint(axes)` on an empty canvas and returns it as an `<svg>` element.

    Args:
      height, width, left, right, top, bottom: inches; the last four are the margins around the axes.
      x, y: axis titles.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the page
        matplotlib.rcParams.update(_SETTINGS)
        away = _TITLE
        while True:  # again, if the numbers at the ticks are wider than most are
            figure = Figure(figsize=(width, height))
            margin = left + away - _TITLE
            box = (margin / width, bottom / height, 1 - (margin + right) / width, 1 - (top + bottom) / height)
            axes = figure.add_axes(box)
            axes.set_axisbelow(True)
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.yaxis.set_label_coords(-away / (box[2] * width), 0.5)
            paint(axes)
            needed = 0.15 + max(map(inches, _numbers(axes.yaxis)), default=0) if y else 0
            if away >= needed:
                break
            away = needed
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue())


def standalone(svg: str) -> str:
    """Converts a page's `<svg>` element to a stand-alone file in the light colours."""
    svg = re.sub(r"var\(--\w+,(#\w+)\)", r"\1", svg)
    root = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" style="background: {PAPER}"'
    return svg.replace("<svg", root, 1) + "\n"


def _inline(svg: str) -> str:
    """Converts matplotlib's SVG file to an element of a page: shorter, the page's fonts and colours, unique ids."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"(?<!\s)\s*\n\s*", "\n", svg)
    svg = re.sub(r"<[^<>]*>", lambda tag: _in_tag(tag[0]), svg)
    salt = hashlib.blake2b(svg.encode(), digest_size=4).hexdigest()
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{salt}-", svg).strip()


def _in_tag(tag: str) -> str:
    tag = re.sub(r"(?<![\w#.])(-?\d+\.\d\d)\d+", r"\1", tag)
    return re.sub("|".join(_VARIABLES), lambda m: f"var(--{_VARIABLES[m[0]]},{m[0]})", tag)
