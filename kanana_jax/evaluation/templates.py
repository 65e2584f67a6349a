"""Sandboxed rendering of the templates of task files.

lm-evaluation-harness renders with an unrestricted Jinja environment, in which a template can reach all of Python, and
evaluates some rendered texts as Python again (a target `[1]` becomes a list). Here only the text of a task file is a
template, values of a row are never evaluated, and what our templates render stays text.
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
    """Makes the harness itself render in this sandbox, by replacing two names that it looks up at every rendering."""
    vars(lm_eval.utils).update(env=_environment(), apply_template=render)


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    """A sandboxed environment with the harness's settings: no access to internals of values, no changes to them."""
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = lm_eval.utils.regex_replace
    return environment


@functools.lru_cache(maxsize=1024)
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)


def render(template: str, row: Mapping[str, Any]) -> str:
    """Renders a template for a row.

    Raises:
      ConfigError: the row does not fit the template, or the template uses something that the sandbox forbids.
    """
    try:
        return _compiled(template).render(dict(row))
    except Exception as error:  # a value of an unexpected type can raise anything
        start = template if len(template) <= 60 else f"{template[:57]}…"
        raise ConfigError(
            f"a row of the data does not fit its task's template {start!r} ({error}): see docs/evaluation.md for its "
            "fields"
        ) from error


def fields(template: str) -> set[str]:
    """The fields of a row that a template uses."""
    return meta.find_undeclared_variables(_environment().parse(template))


@dataclasses.dataclass(frozen=True)
class Text:
    """A function that renders a template for a row, always as text."""

    template: str

    def __call__(self, row: Mapping[str, Any]) -> str:
        return render(self.template, row)


@dataclasses.dataclass(frozen=True)
class Index:
    """A function that computes the index of the right choice from a template."""

    template: str

    def __call__(self, row: Mapping[str, Any]) -> int:
        text = render(self.template, row)
        if not (text.isascii() and text.isdigit()):
            raise ConfigError(f"a row of the data has the target {text[:60]!r}, which must be the number of a choice")
        return int(text)


def as_functions(config: Mapping[str, Any]) -> dict[str, Any]:
    """A task's config with question and target as functions, whose results the harness does not evaluate further."""
    found = dict(config)
    for key in _TEXTS:
        template = found.get(key)
        if isinstance(template, str) and not template.isidentifier():
            chosen = key == "doc_to_target" and found.get("doc_to_choice") is not None
            found[key] = Index(template) if chosen else Text(template)
    return found
