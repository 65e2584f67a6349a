"""The shape of a verb: its action, and the function that adds its parser."""

import argparse
import pathlib
from collections.abc import Callable
from typing import Protocol

from kanana_jax.errors import ConfigError

# The options, the overrides of the config (`a.b=v`) and the whole command → the exit code; None is 0.
Action = Callable[[argparse.Namespace, list[str], list[str]], int | None]


class AddVerb(Protocol):
    """Adds a verb and returns its parser.

    Args of the call:
      summary: one line, in the list of verbs and in the verb's help.
      example: printed below the options.
      passes_on: the verb takes no options of its own; its action gets all arguments as they are, in place of
        overrides, `--help` included.
    """

    def __call__(
        self, name: str, action: Action, summary: str, example: str, *, passes_on: bool = False
    ) -> argparse.ArgumentParser: ...


def place(text: str) -> pathlib.Path:
    """`files.place` as the type of an option; local paths are made without what buckets need."""
    if ":/" not in text:
        return pathlib.Path(text)
    from kanana_jax import files

    try:
        return files.place(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
