"""Plots of labelled points (components against compute, biplots) and heat maps of correlations with dendrograms."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kanana_jax.report.svg import (
    COLOURS,
    INK,
    SMALL,
    SOFT,
    WIDTH,
    draw,
    drawn_once,
    inches,
    legend,
    legend_rows,
    scale,
    short,
    wide_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True)
class Points:
    """Points of one colour.

    Attributes:
      label: shown in the legend.
      names: written beside the points if there is room.
      error: half the height of a bar through each point, or None.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    names: Sequence[str]
    error: Sequence[float] | None = None

    def __post_init__(self):
        if not len(self.x) == len(self.y) == len(self.names) == len(self.x if self.error is None else self.error):
            raise ValueError(f"points '{self.label}': x, y, names and error must be of equal length")


@dataclasses.dataclass(frozen=True)
class Band:
    """A line with an interval around it."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class _Area(NamedTuple):
    """A label's box, in inches."""

    left: float
    low: float
    right: float
    high: float


@drawn_once
def scatter(
    points: Sequence[Points],
    *,
    x: str,
    y: str,
    band: Band | None = None,
    arrows: Mapping[str, tuple[float, float]] | None = None,
    cross: tuple[float | None, float | None] = (None, None),
    note: str = "",
    height: float = 4.2,
    log_x: bool = False,
    joined: bool = False,
    width: float = WIDTH,
) -> str:
    """Plots points with their names; names that would cover others are left out.

    Args:
      band: a fitted line with its interval.
      arrows: name → (dx, dy) from the origin, scaled together to fit the points (a biplot's loadings).
      cross: x and y of faint reference lines.
      note: small print in the lower right corner.
      height, width: inches.
      joined: whether to join the points of each colour by a line, in their order.
    """
    room = width if width == WIDTH else width - 1.6 * bool(note)  # the note stands at the right end of the last row
    key = legend_rows([p.label for p in points], room) if len(points) > 1 else []
    bottom = 0.62 + 0.19 * len(key)
    height += bottom - 0.5

    def paint(axes: "Axes") -> None:
        if band is not None:
            axes.fill_between(band.x, band.low, band.high, color=SOFT, alpha=0.15, linewidth=0)
            axes.plot(band.x, band.y, color=SOFT, linewidth=1.4)
        for at, line in zip(cross, (axes.axvline, axes.axhline)):
            if at is not None:
                line(at, color=SOFT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
        for i, group in enumerate(points):
            colour = COLOURS[i % len(COLOURS)]
            if group.error is not None:
                axes.errorbar(group.x, group.y, group.error, fmt="none", ecolor=colour, alpha=0.45, elinewidth=1)
            if joined:
                axes.plot(group.x, group.y, color=colour, alpha=0.55, linewidth=1.2)
            axes.plot(group.x, group.y, "o", markersize=4.5, color=colour, markeredgewidth=0)
        wanted = [(n, a, b, INK) for p in points for n, a, b in zip(p.names, p.x, p.y)]
        shafts: list[tuple[float, float]] = []
        if arrows:
            reach = [max(map(abs, v), default=1.0) for v in zip(*((a, b) for _, a, b, _ in wanted))] or [1.0, 1.0]
            most = [max(abs(v[k]) for v in arrows.values()) or 1.0 for k in (0, 1)]
            stretch = 0.9 * min(reach[0] / most[0], reach[1] / most[1])
            tips = []
            for name, (dx, dy) in arrows.items():
                tip = (dx * stretch, dy * stretch)
                axes.annotate(
                    "", tip, (0, 0), arrowprops=dict(arrowstyle="-|>", color=COLOURS[1], alpha=0.55, linewidth=0.9)
                )
                tips.append((name, *tip, COLOURS[1]))
                shafts += [(part * tip[0], part * tip[1]) for part in (0.4, 0.55, 0.7, 0.85)]
            wanted = tips + wanted
            axes.update_datalim([tip[1:3] for tip in tips])
        axes.margins(x=0.09, y=0.1)
        if log_x:  # before the limits are computed, since they depend on the scale
            axes.set_xscale("log")
        axes.autoscale_view()
        scale(axes, "x", log_x)
        scale(axes, "y", False)
        _names(axes, wanted, height, shafts)
        legend(axes, key, [p.label for p in points], height)
        _note(axes, note, height)

    return draw(paint, height, x, y, left=0.72, right=0.3, bottom=bottom, width=width)


def _names(
    axes: "Axes",
    wanted: Sequence[tuple[str, float, float, str]],
    height: float,
    shafts: Sequence[tuple[float, float]],
) -> None:
    """Writes each name to the right or left of, above or below its point.

    Uses the first place inside the axes that covers no other name, point or arrow shaft; leaves the name out if there
    is none.
    """
    box = axes.get_position()
    size = (box.width * wide_of(axes), box.height * height)
    taken: list[_Area] = []
    tall, gap = SMALL / 72 * 1.1, 0.05
    inverse = axes.transAxes.inverted()
    dots = [inverse.transform(axes.transData.transform((px, py))) * size for _, px, py, _ in wanted]
    lines = [inverse.transform(axes.transData.transform(at)) * size for at in shafts]
    for (name, px, py, colour), own in zip(wanted, dots):
        u, v = inverse.transform(axes.transData.transform((px, py)))
        cx, cy, wide = u * size[0], v * size[1], inches(short(name)) * SMALL / 9
        for dx, dy, align in ((gap, 0, "left"), (-gap, 0, "right"), (0, 0.1, "center"), (0, -0.1, "center")):
            left = cx + dx - {"left": 0, "right": wide, "center": wide / 2}[align]
            area = _Area(left, cy + dy - tall / 2, left + wide, cy + dy + tall / 2)
            inside = area.left >= 0 and area.right <= size[0] and area.low >= 0 and area.high <= size[1]
            covers = any(
                area.left < a < area.right and area.low < b < area.high for a, b in [*dots, *lines] if (a, b) != tuple(own)
            )
            if inside and not covers and not any(_meet(area, other) for other in taken):
                taken.append(area)
                axes.text((cx + dx) / size[0], (cy + dy) / size[1], short(name), transform=axes.transAxes, ha=align, va="center",
                          fontsize=SMALL, color=colour)  # fmt: skip
                break


def _meet(a: _Area, b: _Area) -> bool:
    return a.left < b.right and b.left < a.right and a.low < b.high and b.low < a.high


def _note(axes: "Axes", note: str, height: float) -> None:
    if note:
        axes.figure.text(1 - 0.1 / wide_of(axes), 0.06 / height, note, ha="right", va="bottom", fontsize=SMALL, color=SOFT)


@drawn_once
def tree_heatmap(
    order: Sequence[str], matrix: Mapping[str, Mapping[str, float | None]], linkage: Sequence[Sequence[float]], *,
    tasks: Sequence[str], note: str = "", width: float = WIDTH,
) -> str:  # fmt: skip
    """Draws a correlation matrix in the order of its dendrogram, which is drawn beside it.

    Args:
      order: rows from top to bottom.
      matrix: row → column → value in [−1, 1].
      linkage: SciPy's linkage matrix over `tasks`.
      width: inches; numbers are written in the cells if there is room.
    """
    n = len(order)
    left = 0.2 + max(inches(short(t)) for t in order)
    tree = 0.12 * width  # inches
    cell = (width - left - tree - 0.4) / n
    upright = cell < 0.25  # slanted names would cover each other
    top = 0.25 + (0.9 if upright else 0.72) * max(inches(short(t)) for t in order)
    tall = max(0.17, min(0.34, cell))
    height = top + 0.3 + tall * n

    def paint(axes: "Axes") -> None:
        from matplotlib import colormaps

        shades = colormaps["RdBu_r"]
        for r, a in enumerate(order):
            for c, b in enumerate(order):
                value = matrix[a][b]
                if value is None:
                    continue
                red, green, blue, _ = shades((value + 1) / 2)
                fill = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
                axes.fill([c, c + 1, c + 1, c], [r, r, r + 1, r + 1], color=fill, linewidth=0)
                if cell > 0.3:
                    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                    axes.text(c + 0.5, r + 0.5, f"{value:.2f}".replace("0.", ".").replace("1.00", "1"), ha="center", va="center",
                              fontsize=SMALL - 1.5, color="#ffffff" if dark else "#101820")  # fmt: skip
        nodes = [(0.0, order.index(t) + 0.5) for t in tasks]
        highest = max((row[2] for row in linkage), default=1.0) or 1.0
        wide = tree / cell * 0.9
        for a, b, distance, _ in linkage:
            (xa, ya), (xb, yb) = nodes[int(a)], nodes[int(b)]
            at = distance / highest * wide
            axes.plot([n + 0.2 + v for v in (xa, at, at, xb)], [ya, ya, yb, yb], color=SOFT, linewidth=1)
            nodes.append((at, (ya + yb) / 2))
        axes.set_xlim(0, n + 0.3 + wide)
        axes.set_ylim(n, 0)
        slope, side, size = (90, "center", SMALL - 1) if upright else (45, "left", None)
        axes.set_xticks([c + 0.5 for c in range(n)], [short(t) for t in order], rotation=slope, ha=side, fontsize=size)
        axes.set_yticks([r + 0.5 for r in range(n)], [short(t) for t in order])
        axes.xaxis.tick_top()
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        _note(axes, note, height)

    right = width - left - cell * (n + 0.3) - tree * 0.9
    return draw(paint, height, "", "", left=left, right=max(0.1, right), top=top, bottom=0.3, width=width)
