"""Plots in a notebook: in Jupyter, Colab and on GitHub alike."""

import dataclasses

from kanana_jax.report.svg import standalone


@dataclasses.dataclass(frozen=True)
class Figure:
    """A plot of a page as the last line of a notebook's cell.

    Attributes:
      svg: an `<svg>` element, as `report.plots` returns it.
    """

    svg: str

    def _repr_svg_(self) -> str:
        return standalone(self.svg)
