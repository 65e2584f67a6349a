"""Plots as SVG text: deterministic bytes, text kept as text so that the reader's fonts show any script."""

import dataclasses
import hashlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence

# Okabe & Ito (2008): distinguishable with colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6b6b6b", "#000000")
MAX_POINTS = 600


@dataclasses.dataclass(frozen=True)
class Series:
    """A line: `x` and `y` of equal length; `label` stands in the legend."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def lines(
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    log_y: bool = False,
    boundaries: Mapping[str, float] | None = None,
    markers: bool = False,
    height: float = 3.2,
) -> str:
    """A line plot.

    Args:
      x, y: axis titles with units.
      boundaries: name → x at which a stage begins; drawn as vertical lines.
      markers: dots at the points, for sparse series.

    Returns:
      An `<svg>` element. Of long series evenly spaced points are drawn, at most `MAX_POINTS`.
    """
    figure, axes = _axes(height)
    for i, s in enumerate(series):
        every = max(1, len(s.x) // MAX_POINTS)
        axes.plot(
            s.x[::every],
            s.y[::every],
            label=s.label,
            color=COLOURS[i % len(COLOURS)],
            linewidth=1.6,
            linestyle="-" if i < len(COLOURS) else "--",
            marker="o" if markers else None,
            markersize=3,
        )
    for name, position in (boundaries or {}).items():
        axes.axvline(position, color="#9aa5b5", linewidth=1, linestyle=":")
        axes.annotate(
            name,
            (position, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -11),
            textcoords="offset points",
            fontsize=8,
            color="#5b6576",
        )
    if log_y:
        axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if len(series) > 1:
        axes.legend(fontsize=8, frameon=False, ncols=2 if len(series) > 6 else 1)
    return _svg(figure)


def grouped_bars(groups: Sequence[str], bars: Mapping[str, Sequence[float]], *, y: str) -> str:
    """Bars side by side for each group (say, wanted and seen shares of each source)."""
    figure, axes = _axes(max(2.2, 0.34 * len(groups) + 0.9))
    width = 0.8 / max(len(bars), 1)
    for i, (label, values) in enumerate(bars.items()):
        offsets = [g + (i - (len(bars) - 1) / 2) * width for g in range(len(groups))]
        axes.barh(offsets, values, width, label=label, color=COLOURS[i % len(COLOURS)])
    axes.set_yticks(range(len(groups)), groups, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(y)
    axes.legend(fontsize=8, frameon=False)
    return _svg(figure)


def _axes(height: float):
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        figure = Figure(figsize=(9.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(True, color="#e6e9ef", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def _svg(figure) -> str:
    import matplotlib

    buffer = io.StringIO()
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kanana", "font.family": "sans-serif"}),
    ):
        # Widths are guessed with a font that may lack a script; the reader's fonts draw the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Ids repeat from plot to plot; on one page they must not.
    salt = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{salt}-", text)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
