"""Plots in notebooks, shown alike in Jupyter, Colab and on GitHub."""

import dataclasses

from kanana_jax.report.svg import standalone


@dataclasses.dataclass(frozen=True)
class Figure:
    """A page's plot for display: use it as the last expression of a notebook cell.

    Attributes:
      svg: an `<svg>` element, as `report.plots` returns it.
    """

    svg: str

    def _repr_svg_(self) -> str:
        return standalone(self.svg)
