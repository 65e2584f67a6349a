"""The verb `launch`: `launch/tpu.py`, whose help and exit codes are its own."""

import argparse

from kanana_jax.cli.verbs import AddVerb


def add_verbs(verb: AddVerb) -> None:
    """Adds `launch`."""
    verb("launch", _launch, "start, watch and stop a run on Cloud TPU", "", passes_on=True)


def _launch(options: argparse.Namespace, arguments: list[str], command: list[str]) -> int:
    from kanana_jax.launch import tpu

    return tpu.main(arguments, prog="kanana launch")
