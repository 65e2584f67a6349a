"""The verb `report`."""

import argparse

from kanana_jax.cli.verbs import AddVerb, place

_EXAMPLE = """example:
  kanana report runs/tiny

Works at any time, also during the run, since it only reads files. A run writes its report when a stage ends and every
`--config.report.every_minutes` (default 5)."""


def add_verbs(verb: AddVerb) -> None:
    """Adds `report`."""
    sub = verb("report", _report, "write the report of a run: DIR/report.html", _EXAMPLE)
    sub.add_argument("workdir", type=place, metavar="DIR", help="workdir of `kanana run`")


def _report(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.recipe.reports import write_report

    print(write_report(options.workdir))
