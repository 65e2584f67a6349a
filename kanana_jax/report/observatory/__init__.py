"""The report of an observatory study: `components.json` → `report.html` and `plots/*.svg`, the answer first."""

import pathlib

from kanana_jax.files import load_json
from kanana_jax.report.observatory import figures
from kanana_jax.report.observatory.answers import answer
from kanana_jax.report.observatory.decided import rivals
from kanana_jax.report.observatory.sections import page
from kanana_jax.report.observatory.sentences import inverse_sentence
from kanana_jax.report.page import write

__all__ = ["answer", "inverse_sentence", "page", "rivals", "write_observatory_report"]


def write_observatory_report(folder: pathlib.Path) -> pathlib.Path:
    """Writes `DIR/report.html` and `DIR/plots/` from `DIR/components.json`.

    Raises:
      UserError: the folder contains no study.
    """
    study = load_json(folder / "components.json")
    plots = figures.draw(study)
    for name, figure in plots.items():
        figures.write_svg(folder / "plots" / f"{name}.svg", figure.svg)
    return write(page(study, plots), folder / "report.html")
