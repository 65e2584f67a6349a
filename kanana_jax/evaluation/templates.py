"""Templates of task files, rendered in a sandbox; the values of a row are text to them.

lm-evaluation-harness renders with an open Jinja environment, in which a template can reach everything that Python can,
and reads some of what comes out as Python again (a target `[1]` becomes a list). Here only a task file's own text is a
template, and what a template of ours gives stays text.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jinja2
import lm_eval.utils
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kanana_jax.errors import ConfigError

_TEXTS = ("doc_to_text", "doc_to_target")


def confine_harness() -> None:
    """Makes the harness render its templates here too: it looks up both names whenever it renders."""
    vars(lm_eval.utils).update(env=_environment(), apply_template=render)


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    """The harness's settings, confined: no attribute that leads out of a value, no change of a value."""
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = lm_eval.utils.regex_replace
    return environment


@functools.lru_cache(maxsize=1024)
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)


def render(template: str, row: Mapping[str, Any]) -> str:
    """The text of a task file's template for a row.

    Raises:
      ConfigError: the row does not fit the template, or the template asks for what the sandbox does not give.
    """
    try:
        return _compiled(template).render(dict(row))
    except Exception as error:  # whatever a value does that is of another type than the template takes it for
        start = template if len(template) <= 60 else f"{template[:57]}…"
        raise ConfigError(
            f"a row of the data does not fit its task's template {start!r} ({error}): see docs/evaluation.md for its "
            "fields"
        ) from error


def fields(template: str) -> set[str]:
    """The fields that a template asks of a row."""
    return meta.find_undeclared_variables(_environment().parse(template))


@dataclasses.dataclass(frozen=True)
class Text:
    """A template rendered for a row, always as text."""

    template: str

    def __call__(self, row: Mapping[str, Any]) -> str:
        return render(self.template, row)


@dataclasses.dataclass(frozen=True)
class Index:
    """The place of the right choice, where a template computes it."""

    template: str

    def __call__(self, row: Mapping[str, Any]) -> int:
        text = render(self.template, row)
        if not (text.isascii() and text.isdigit()):
            raise ConfigError(f"a row of the data has the target {text[:60]!r}, which must be the number of a choice")
        return int(text)


def as_functions(config: Mapping[str, Any]) -> dict[str, Any]:
    """A task's config, its question and target as functions: what these give, the harness takes as it is."""
    found = dict(config)
    for key in _TEXTS:
        template = found.get(key)
        if isinstance(template, str) and not template.isidentifier():
            chosen = key == "doc_to_target" and found.get("doc_to_choice") is not None
            found[key] = Index(template) if chosen else Text(template)
    return found
