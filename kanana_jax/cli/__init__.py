"""The `kanana` command. Nothing heavy is imported before a verb is known."""

import argparse
import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from kanana_jax import __version__
from kanana_jax.cli import (
    best_of_n,
    config,
    data,
    duplicates,
    embed,
    evaluate,
    export,
    filters,
    judge,
    launch,
    merge,
    mine,
    models,
    observe,
    plan,
    prepare,
    process,
    quality,
    rag,
    report,
    serve,
    tasks,
    tokenizer,
)
from kanana_jax.cli.verbs import Action
from kanana_jax.errors import ConfigError, Stopped, UserError, nearest


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit code."""
    process.set_up_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with process.stoppable() as told:
            try:
                code = _run(arguments, told)
            except SystemExit:  # of --help, and of bad usage
                if failed := process.flush_output():
                    return failed
                raise
            return process.flush_output() or code
    except Stopped as stopped:
        process.say(str(stopped))
        return stopped.exit_code
    except BrokenPipeError as error:
        if process.is_closed_pipe():
            return process.CLOSED_PIPE
        return _fault(error)
    except KeyboardInterrupt:
        process.say(process.sentence_of(signal.SIGINT))
        return 130


def _run(arguments: list[str], told: Callable[[], Stopped | None]) -> int:
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # set by the shell while it completes a command line
        import argcomplete

        argcomplete.autocomplete(parser)
    _check_verb(arguments, parser)
    options, rest = parser.parse_known_args(arguments)
    try:
        if hasattr(options, "config"):
            overrides = _overrides(rest)
        else:
            overrides = rest if options.passes_on else _nothing(rest, parser)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        logging.getLogger("kanana").setLevel(logging.INFO)
        if not options.debug:
            # A failed save comes back to this thread and is reported in its own sentence; asyncio and the writing
            # threads would add a traceback for every array.
            for name in ("asyncio", "absl"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *_: None
        return options.action(options, overrides, ["kanana", *arguments]) or 0
    except BaseException as error:
        stopped = told()
        if stopped is not None and error is not stopped:
            raise stopped from error
        return _code_of(error, options.debug)


def _code_of(error: BaseException, debug: bool) -> int:
    """Reports an error as a sentence; errors that `main` reports are raised again, and with `--debug` all are."""
    from kanana_jax.data.tokens.panics import is_panic

    if debug or isinstance(error, BrokenPipeError) or not (isinstance(error, Exception) or is_panic(error)):
        raise error
    if isinstance(error, UserError):
        process.say(str(error))
        return error.exit_code
    return _fault(error)


def _fault(error: BaseException) -> int:
    """Reports an error that nothing below has reported."""
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, UnicodeEncodeError):
        first = "the name of a file or folder is not UTF-8, which some libraries need: set LC_ALL=C.UTF-8, or rename it"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:  # by `print`, mostly
        process.say(f"cannot write the output ({error.strerror}): free space, or send it elsewhere")
    elif os.strerror(errno.ENOSPC) in str(error):  # in whatever words a library has put it
        process.say(f"the disk is full ({first}): free space, then run the command again")
    elif isinstance(error, OSError) and isinstance(error.filename, (str, bytes)) and error.strerror:
        process.say(f"cannot use {os.fsdecode(error.filename)} ({error.strerror}): fix it, or name another")
    else:
        process.say(f"{type(error).__name__}: {first} (--debug shows where)")
    return 1


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="kanana", description="Train local-language models by the Kanana recipe, in JAX.", formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"kanana-jax {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(
        name: str, action: Action, summary: str, example: str, *, passes_on: bool = False
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name,
            help=summary,
            description=summary,
            parents=[common],
            add_help=not passes_on,
            formatter_class=raw,
            allow_abbrev=False,
            epilog=example,
        )
        sub.set_defaults(action=action, passes_on=passes_on)
        return sub

    models.add_verbs(verb)
    export.add_verbs(verb)
    serve.add_verbs(verb)
    merge.add_verbs(verb)
    prepare.add_verbs(verb)
    data.add_verbs(verb)
    config.add_verbs(verb)
    plan.add_verbs(verb)
    filters.add_verbs(verb)
    duplicates.add_verbs(verb)
    tokenizer.add_verbs(verb)
    quality.add_verbs(verb)
    report.add_verbs(verb)
    observe.add_verbs(verb)
    evaluate.add_verbs(verb)
    judge.add_verbs(verb)
    best_of_n.add_verbs(verb)
    embed.add_verbs(verb)
    mine.add_verbs(verb)
    rag.add_verbs(verb)
    tasks.add_verbs(verb)
    launch.add_verbs(verb)
    return parser


def _check_verb(arguments: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Refuses an unknown verb, and names the nearest one."""
    verbs = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    given = next((argument for argument in arguments if not argument.startswith("-")), None)
    if given is not None and given not in verbs:
        parser.error(f"there is no verb '{given}': {nearest(given, list(verbs))}")


def _nothing(rest: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return []


def _overrides(rest: Sequence[str]) -> list[str]:
    """`--config.a.b=v` and `--config.a.b v` → `a.b=v`."""
    assignments, waiting = [], None
    for argument in rest:
        if waiting is not None:
            assignments.append(f"{waiting}={argument}")
            waiting = None
        elif argument.startswith("--config."):
            key, equals, value = argument.removeprefix("--config.").partition("=")
            if equals:
                assignments.append(f"{key}={value}")
            else:
                waiting = key
        else:
            raise ConfigError(f"unrecognized argument '{argument}': changes of the config are --config.KEY=VALUE")
    if waiting is not None:
        raise ConfigError(f"override '--config.{waiting}' needs a value: --config.{waiting}=VALUE")
    return assignments
