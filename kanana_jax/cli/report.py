"""The verb `report`."""

import argparse

from kanana_jax.cli.verbs import AddVerb, place

_EXAMPLE = """example:
  kanana report runs/tiny

At any time, also while the run lives: only files are read. A run writes its report itself when a stage ends and every
`--config.report.every_minutes` (5)."""


def add_verbs(verb: AddVerb) -> None:
    """Adds `report`."""
    sub = verb("report", _report, "write the report of a run: DIR/report.html", _EXAMPLE)
    sub.add_argument("workdir", type=place, metavar="DIR", help="workdir of `kanana run`")


def _report(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.recipe.reports import write_report

    print(write_report(options.workdir))
