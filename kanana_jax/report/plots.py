"""Line plots, bars, histograms and heat maps: pure functions from numbers to an `<svg>` element."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kanana_jax.report.svg import (
    COLOURS,
    INK,
    PAPER,
    SMALL,
    SOFT,
    WIDTH,
    draw,
    drawn_once,
    end_labels,
    inches,
    legend,
    legend_rows,
    number,
    scale,
    short,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

MAX_POINTS = 600  # per line


@dataclasses.dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
      label: written at the line's end if there are several lines.
      x, y: of equal length; values that are not finite (or not positive on a logarithmic axis) leave a gap.
      low, high: a band around the line, of the same length, or None.
      faint: whether to draw it thin, pale and unlabelled behind the others (e.g. raw values under their mean).
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    faint: bool = False

    def __post_init__(self):
        if any(len(v) != len(self.x) for v in (self.y, self.low, self.high) if v is not None):
            raise ValueError(f"series '{self.label}': x, y, low and high must be of equal length")


def thin(x: Sequence[float], y: Sequence[float], points: int = MAX_POINTS) -> "tuple[np.ndarray, np.ndarray]":
    """Thins a curve to at most `points` points, keeping its shape and spikes.

    The curve is cut into `points // 2` pieces of equally many points, and the lowest and the highest point of each
    piece are kept. Shorter curves are returned unchanged.

    Returns:
      Two float64 arrays `[<= points]`.
    """
    import numpy as np

    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(xs) <= points:
        return xs, ys
    keep: set[int] = set()
    for piece in np.array_split(np.arange(len(xs)), max(1, points // 2)):
        finite = piece[np.isfinite(ys[piece])]
        source = finite if len(finite) else piece[:1]
        keep |= {int(source[np.argmin(ys[source])]), int(source[np.argmax(ys[source])])}
    index = np.array(sorted(keep))
    return xs[index], ys[index]


@drawn_once
def lines(
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    boundaries: Mapping[str, float] | None = None,
    markers: bool = False,
    height: float = 3.2,
    width: float = WIDTH,
) -> str:
    """A line plot.

    Args:
      x, y: axis titles with units.
      boundaries: name → x at which a stage begins; drawn as vertical lines.
      markers: whether to draw dots at the points, for sparse series.
      height, width: inches; the height grows if labels need more room.

    Returns:
      An `<svg>` element; each line is thinned to at most `MAX_POINTS` points (see `thin`).
    """
    import numpy as np

    named = [s for s in series if not s.faint]
    labels = [short(s.label) for s in named] if len(named) > 1 else []
    height = max(height, 0.17 * len(labels) + 0.9)
    right = 0.25 + max(map(inches, labels), default=0)

    def paint(axes: "Axes") -> None:
        colour = {s.label: COLOURS[i % len(COLOURS)] for i, s in enumerate(named)}
        ends = []
        for s in sorted(series, key=lambda s: not s.faint):
            xs, ys = thin(s.x, s.y)
            ys = np.where(np.isfinite(ys) & ((ys > 0) | (not log_y)), ys, np.nan)
            tone = colour.get(s.label, COLOURS[0])
            if s.low is not None and s.high is not None:
                low_x, low = thin(s.x, s.low)
                high = np.interp(low_x, *thin(s.x, s.high))
                axes.fill_between(low_x, low, high, color=tone, alpha=0.18, linewidth=0)
            dots: dict[str, Any] = dict(marker="o", markersize=3.2) if (markers and not s.faint) or len(xs) == 1 else {}
            axes.plot(xs, ys, color=tone, linewidth=0.8 if s.faint else 1.7, alpha=0.35 if s.faint else 1.0, **dots)
            if not s.faint and len(labels):
                seen = ys[np.isfinite(ys)]
                ends.append((short(s.label), seen[-1] if len(seen) else None, tone))
        for direction, log in (("x", log_x), ("y", log_y)):
            scale(axes, direction, log)
        for name, position in (boundaries or {}).items():
            axes.axvline(position, color=SOFT, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
            _above(axes, name, position, SOFT)
        axes.margins(x=0.01)
        end_labels(axes, ends, height)

    return draw(paint, height, x, y, left=0.72, right=right, top=0.26 if boundaries else 0.12, width=width)


def _above(axes: "Axes", name: str, x: float, colour: str) -> None:
    """Writes a name above the vertical line at x."""
    axes.annotate(
        short(name),
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, 4),
        textcoords="offset points",
        color=colour,
        fontsize=SMALL,
    )


@drawn_once
def bars(
    groups: Sequence[str],
    values: Mapping[str, Sequence[float]],
    *,
    x: str,
    stacked: bool = False,
    digits: int = 3,
    width: float = WIDTH,
) -> str:
    """Horizontal bars for each group, side by side or stacked (e.g. the shares of sources in a mixture).

    Args:
      values: name → one value for each group; shown in the order given.
      x: title of the value axis, with its unit.
      digits: significant digits of the values written beside bars that are not stacked.
      width: inches.

    Raises:
      ValueError: the number of values differs from the number of groups.
    """
    if any(len(v) != len(groups) for v in values.values()):
        raise ValueError("bars need one value for each group under every name")
    left = 0.15 + max((inches(short(g)) for g in groups), default=0)
    thick = 0.30 if stacked else max(0.24, 0.15 * len(values))
    key = legend_rows(list(values), width) if len(values) > 1 else []
    bottom = 0.5 + 0.19 * len(key)
    height = 0.15 + bottom + (thick + 0.1) * max(1, len(groups))
    beside = 1 if width == WIDTH else 1.8  # as wide in letters, but not in units of the axis

    def paint(axes: "Axes") -> None:
        starts = [0.0] * len(groups)
        for i, row in enumerate(values.values()):
            colour, pale = COLOURS[i % len(COLOURS)], 1.0 if i < len(COLOURS) else 0.5
            row = [float(v) if math.isfinite(v) else 0.0 for v in row]
            across = 0.74 if stacked else 0.74 / len(values)
            at = [g + (0 if stacked else (i - (len(values) - 1) / 2) * across) for g in range(len(groups))]
            edge: dict[str, Any] = dict(edgecolor=PAPER, linewidth=0.8) if stacked else {}
            axes.barh(at, row, across, left=starts if stacked else 0, color=colour, alpha=pale, **edge)
            if stacked:
                starts = [a + b for a, b in zip(starts, row)]
            elif len(values) == 1:
                for g, value in enumerate(row):
                    away, side = (4, "left") if value >= 0 else (-4, "right")
                    axes.annotate(
                        number(value, digits),
                        (value, g),
                        xytext=(away, 0),
                        textcoords="offset points",
                        va="center",
                        ha=side,
                        color=SOFT,
                        fontsize=SMALL,
                    )
        axes.set_yticks(range(len(groups)), [short(g) for g in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.grid(False, axis="y")
        # Room for the values beside the bars, on both sides if some are negative.
        axes.margins(x=0.0 if stacked else beside * (0.12 if any(v < 0 for row in values.values() for v in row) else 0.06))
        scale(axes, "x", False)
        legend(axes, key, list(values), height)

    return draw(paint, height, x, "", left=left, right=0.3, bottom=bottom, width=width)


@drawn_once
def histogram(
    values: Sequence[float] | Mapping[str, Sequence[float]],
    *,
    x: str,
    y: str = "count",
    bins: int = 40,
    log_x: bool = False,
    marks: Mapping[str, float] | None = None,
    height: float = 2.6,
) -> str:
    """A histogram; several named sets are overlaid on common bins.

    Args:
      log_x: whether bins have equal ratios; values that are not positive are then left out.
      marks: name → x of a vertical line (e.g. a filter's threshold).
    """
    import numpy as np

    sets = dict(values) if isinstance(values, Mapping) else {"": values}
    sets = {name: np.asarray(v, np.float64) for name, v in sets.items()}
    sets = {name: v[np.isfinite(v) & ((v > 0) | (not log_x))] for name, v in sets.items()}
    every = np.concatenate([np.log10(v) if log_x else v for v in sets.values()] or [np.zeros(0)])
    edges = np.histogram_bin_edges(every if len(every) else np.array([0.0, 1.0]), bins)
    edges = 10**edges if log_x else edges
    key = legend_rows(list(sets)) if len(sets) > 1 else []
    bottom = 0.5 + 0.19 * len(key)

    def paint(axes: "Axes") -> None:
        for i, v in enumerate(sets.values()):
            axes.stairs(np.histogram(v, edges)[0], edges, fill=True, color=COLOURS[i % len(COLOURS)],
                        alpha=0.85 if len(sets) == 1 else 0.45)  # fmt: skip
        for name, position in (marks or {}).items():
            axes.axvline(position, color=INK, linewidth=1, linestyle=(0, (4, 2)))
            _above(axes, name, position, INK)
        scale(axes, "x", log_x)
        scale(axes, "y", False)
        axes.set_ylim(bottom=0)
        legend(axes, key, list(sets), height + bottom - 0.5)

    return draw(paint, height + bottom - 0.5, x, y, left=0.72, right=0.3, top=0.26 if marks else 0.12, bottom=bottom)


@drawn_once
def heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    low: float | None = None,
    high: float | None = None,
    diverging: bool = False,
    digits: int = 2,
) -> str:
    """A matrix of numbers in coloured cells.

    Args:
      values: `[len(rows), len(columns)]`; cells that are not finite stay empty.
      low, high: ends of the colour scale; default: the range of the data, symmetric about 0 if `diverging`.
      diverging: blue below the middle, red above (e.g. correlations); otherwise pale to dark blue.
      digits: decimals.

    Raises:
      ValueError: the matrix has another shape.
    """
    import numpy as np

    matrix = np.asarray(values, np.float64).reshape(-1, len(columns)) if len(columns) else np.zeros((0, 0))
    if len(matrix) != len(rows):
        raise ValueError(f"heatmap: {len(matrix)} rows of values for {len(rows)} labels")
    finite = matrix[np.isfinite(matrix)]
    ends = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    if diverging:
        ends = (-max(map(abs, ends)), max(map(abs, ends)))
    low, high = ends[0] if low is None else low, ends[1] if high is None else high
    left = 0.15 + max((inches(short(r)) for r in rows), default=0)
    top = 0.2 + 0.72 * max((inches(short(c)) for c in columns), default=0)
    cell = min(0.95, (WIDTH - left - 0.6) / max(1, len(columns)))
    tall = min(0.34, max(0.2, cell))
    height = top + 0.1 + tall * max(1, len(rows))

    def paint(axes: "Axes") -> None:
        from matplotlib import colormaps

        shades = colormaps["RdBu_r" if diverging else "Blues"]
        for r, c in np.argwhere(np.isfinite(matrix)):
            red, green, blue, _ = shades(min(1.0, max(0.0, (matrix[r, c] - low) / ((high - low) or 1.0))))
            fill = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
            axes.fill([c, c + 1, c + 1, c], [r, r, r + 1, r + 1], color=fill, linewidth=0)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            if cell > 0.3:
                axes.text(c + 0.5, r + 0.5, f"{matrix[r, c]:.{digits}f}", ha="center", va="center", fontsize=SMALL,
                          color="#ffffff" if dark else "#101820")  # fmt: skip
        axes.set_xlim(0, max(1, len(columns)))
        axes.set_ylim(max(1, len(rows)), 0)
        axes.set_xticks([c + 0.5 for c in range(len(columns))], [short(c) for c in columns], rotation=45, ha="left")
        axes.set_yticks([r + 0.5 for r in range(len(rows))], [short(r) for r in rows])
        axes.xaxis.tick_top()
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)

    right = max(0.3, WIDTH - left - cell * max(1, len(columns)))
    return draw(paint, height, "", "", left=left, right=right, top=top, bottom=0.1)
