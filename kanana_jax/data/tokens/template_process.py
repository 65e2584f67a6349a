"""Renders chat templates, a request a line, in a process of its own (`rendering.py`).

A template is a program from elsewhere. jinja2's sandbox keeps it from Python's insides; that it ends, and in what
memory, no sandbox can know: the kernel ends this process at its limits. It imports nothing but jinja2.

A template finds what transformers' `apply_chat_template` offers: `raise_exception`, `strftime_now`, `tojson` without
HTML's escapes, `break` and `continue`, and `{% generation %}` around what the assistant says.
"""

import datetime
import json
import signal
import sys
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

# Noncharacters of Unicode (never in a text) mark what the assistant says, where that is asked.
BEGIN, END = "\ufdd0", "\ufdd1"


class Refused(jinja2.TemplateError):
    """`raise_exception` of a template."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        context = jinja2.nodes.ContextReference()
        call = self.call_method("_marked", [context])
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, context: Any, caller: Any) -> str:
        text = caller()
        return f"{BEGIN}{text}{END}" if context.get("_marks") else text


class _Dict:
    """`dict` of a template: makes dictionaries, and has no other way to Python's types."""

    def __call__(self, *arguments: Any, **named: Any) -> dict[Any, Any]:
        return dict(*arguments, **named)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments)


def environment() -> jinja2.Environment:
    """The environment that templates are rendered in."""
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _tojson
    offered: dict[str, Any] = made.globals
    offered |= {"raise_exception": _raise, "strftime_now": _now, "dict": _Dict()}
    return made


def _raise(message: Any) -> None:
    raise Refused(str(message))


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def render(template: jinja2.Template, variables: dict[str, Any], characters: int) -> str:
    """The rendered text.

    Raises:
      OverflowError: longer than `characters`.
    """
    parts, length = [], 0
    for part in template.generate(**variables):
        length += len(part)
        if length > characters:
            raise OverflowError(f"writes more than {characters:,} characters")
        parts.append(part)
    return "".join(parts)


def answer(made: jinja2.Environment, request: dict[str, Any], templates: dict[str, jinja2.Template]) -> dict[str, Any]:
    """`{"texts": […]}`, or `{"error": sentence's end, "refused": by the template itself}`."""
    source = request["template"]
    try:
        if source not in templates:
            templates[source] = made.from_string(source)
        characters = request["characters"]
        return {"texts": [render(templates[source], variables, characters) for variables in request["asked"]]}
    except Refused as error:
        return {"refused": str(error)[:300]}
    except jinja2.TemplateSyntaxError as error:
        return {"error": f"is damaged in line {error.lineno} ({str(error.message)[:200]})"}
    except jinja2.exceptions.SecurityError as error:
        return {"error": f"reaches for what is not a template's ({str(error)[:200]})"}
    except MemoryError:
        return {"error": "needs too much memory"}
    except RecursionError:
        return {"error": "calls itself without end"}
    except OverflowError as error:
        return {"error": f"asks for too much ({str(error)[:200]})"}
    except Exception as error:
        return {"error": f"fails ({type(error).__name__}: {str(error)[:200]})"}


def main() -> None:
    """Answers requests from standard input until it ends; the first line holds the limits."""
    limits = json.loads(sys.stdin.readline())
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"],) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    except (ImportError, ValueError, OSError):  # a system without such limits still has those of time and output
        pass
    made, templates = environment(), {}
    for line in sys.stdin:
        # Processor time, so that a busy machine does not count; and by the clock, for good measure.
        signal.setitimer(signal.ITIMER_PROF, limits["seconds"])
        signal.setitimer(signal.ITIMER_REAL, 20 * limits["seconds"])
        reply = json.dumps(answer(made, json.loads(line), templates))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
