"""Every command that the documents show is one that exists: verbs, options, configs and their keys, scripts, targets."""

import argparse
import importlib.util
import os
import re
import stat
import sys

import commands
import pytest
from conftest import ROOT
from kanana_jax.launch import tpu, worker

from kanana_jax import cli
from kanana_jax.config import read_config_file
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.recipe import config as recipe_config

FOUND = [*commands.of_documents(), *commands.of_docstrings()]
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))
# Values that only a reader can name.
_STANDS_FOR_A_CONFIG = (
    "FILE",
    "CONFIG",
    "FILE_OR_NAME",
    "FILE_OR_NAME[:ARG]",
    "thresholds.py",
    "quality.py",
    "ours.py",
)


class _Wrong(Exception):
    """What a parser says."""


def _raise(parser, message):
    raise _Wrong(message)


@pytest.fixture(autouse=True)
def _parsers_raise(monkeypatch):
    monkeypatch.setattr(argparse.ArgumentParser, "error", _raise)


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """Its own, and those of its verbs."""
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for sub in action.choices.values() for option in _options(sub)}
    return found


def _verbs() -> dict[str, argparse.ArgumentParser]:
    parser = cli._parser()
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _parsed(parser: argparse.ArgumentParser, words: tuple[str, ...], whole: bool) -> list[str]:
    """Parses words, or where the command is not whole looks for its options alone; what is left over."""
    if whole and not commands.is_sketch(words):
        return parser.parse_known_args(list(words))[1]
    return [word for word in words if word.startswith("--") and word.partition("=")[0] not in _options(parser)]


def _kanana(words: tuple[str, ...], whole: bool) -> None:
    verbs = _verbs()
    if not words or words[0].startswith("-") or words[0] in ("VERB", "…"):
        assert all(word in ("--help", "--version", "VERB", "…") for word in words), words
        return
    assert words[0] in verbs, f"there is no verb '{words[0]}'"
    if words[0] == "launch":
        _launch(words[1:], whole)
        return
    if "--help" in words:
        return
    rest = _parsed(verbs[words[0]], words[1:], whole)
    overrides = [word for word in rest if word.startswith("--config.")]
    assert rest == overrides, f"unknown: {sorted(set(rest) - set(overrides))}"
    _keys(commands.configs(words) or (words[1] if words[0] == "config" and len(words) > 1 else None), overrides)


def _launch(words: tuple[str, ...], whole: bool) -> None:
    rest = _parsed(tpu._parser("kanana launch"), words, whole)
    assert all(word.startswith("--config.") for word in rest if word != "…"), rest
    _keys(commands.configs(words), rest)


def _keys(config: str | None, overrides: list[str]) -> None:
    """The config is there, and takes the overrides."""
    if config is None or config.startswith(_STANDS_FOR_A_CONFIG) or "…" in config:
        return
    assert commands.as_path(config).is_file(), f"there is no config {config}"
    loaded = _loaded(config)
    if loaded is not None and "stages" in loaded:
        recipe_config.override(loaded, [word.removeprefix("--config.") for word in overrides if "…" not in word])


def _loaded(config: str):
    """The config with its argument, without where that is a place of the reader's, or None where it needs one."""
    # No bucket of the documents is there, and a store that is not there is asked for most of a minute.
    values = (config, config.partition(":")[0])
    for value in values[1:] if "://" in config else values:
        try:
            file = commands.as_path(value)
            return read_config_file(f"{file}:{value.partition(':')[2]}" if ":" in value else str(file))
        except UserError:
            continue
    return None


def _script(words: tuple[str, ...], whole: bool, monkeypatch) -> None:
    """The parser that the script itself makes."""
    file = ROOT / words[1]
    assert file.is_file(), f"there is no {words[1]}"
    if file == ROOT / "launch/tpu.py":
        _launch(words[2:], whole)
        return
    made: list[argparse.ArgumentParser] = []

    class Parsed(Exception):
        pass

    def stop(parser, arguments=None, namespace=None):
        made.append(parser)
        raise Parsed

    spec = importlib.util.spec_from_file_location(f"shown_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.setattr(sys, "argv", [str(file)])
    if file.parent == ROOT / "launch":
        module = importlib.import_module(f"kanana_jax.launch.{file.stem}")
    else:
        spec.loader.exec_module(module)
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        with pytest.raises(Parsed):
            module.main()
    (parser,) = made
    own, run = words[2:], None
    if file.parent == ROOT / "launch" and "--" in own:
        own, run = own[: own.index("--")], own[own.index("--") + 1 :]
    rest = _parsed(parser, own, whole)
    if file.name == "local.py":  # which hands on what it does not know
        rest = _parsed(worker._parser(), tuple(rest), whole)
    assert not rest, f"unknown: {rest}"
    if run is not None:
        _kanana(("run", *run), whole)


@pytest.mark.parametrize("command", sorted(set(FOUND), key=str), ids=str)
def test_it_exists(command, monkeypatch):
    words = command.words
    if words[0] == "kanana":
        _kanana(words[1:], command.whole)
    elif words[0] == "make":
        assert {w for w in words[1:] if "=" not in w} <= TARGETS, words
    else:
        _script(words, command.whole, monkeypatch)


@pytest.mark.parametrize("verb", sorted(_verbs()))
def test_the_example_of_a_verb_is_right(verb):
    for command in commands._split(_verbs()[verb].epilog or "", f"kanana {verb} --help", True):
        _kanana(command.words[1:], True)


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("```sh\nkanana run --config configs/tiny.py --workdir w --drry-run\n```", True),
        ("```sh\nkanana run --config configs/tniy.py --workdir w\n```", True),
        ("```sh\nkanana run --config configs/tiny.py \\\n    --workdir w --config.stage1.train.tokns=1\n```", True),
        ("```sh\nkanana run --config configs/tiny.py --workdir w --config.stage1.train.tokens=1M # so\n```", False),
        ("as `kanana genrate MODEL` says", True),
        ("as `kanana eval … --limit 3` says", False),
        ("as `kanana eval … --limits 3` says", True),
        ("```sh\nkanana eval --plot a.html b.json && kanana launch upp\n```", True),
        ("`make tests`", True),
    ],
)
def test_a_wrong_command_is_found(text, wrong, monkeypatch):
    found = commands.of_text(text, "here")
    assert found
    try:
        for command in found:
            test_it_exists(command, monkeypatch)
    except (AssertionError, ConfigError, _Wrong):
        assert wrong
    else:
        assert not wrong


def test_the_launch_guide_line_by_line(tmp_path, monkeypatch, capfd):
    """Each of its launches is tried with --dry-run; `git` and `gcloud` that are reached by mistake fail the test."""
    for name, text in (("git", "echo 0123456789abcdef0123456789abcdef01234567"), ("gcloud", "exit 99")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    shown = [c for c in commands.of_documents() if c.place == "docs/launch.md" and c.whole and c.words[1] == "launch"]
    launched = []
    for command in shown:
        arguments = [word for word in command.words[2:] if word != "--dry-run"]
        code, told = cli.main(["launch", *arguments, "--dry-run"]), capfd.readouterr()
        assert code == 0, (str(command), told.err)
        assert "not checked" not in told.err and "gcloud compute tpus" in told.out
        launched.append(arguments[0])
        if "--config" in arguments and "documents" in commands.configs(command.words):
            assert "gcloud storage ls gs://MY_BUCKET/documents/tokenizer" in told.out
    assert launched.count("supervise") >= 6 and {"status", "logs", "down"} <= set(launched)


def test_fences_of_other_languages_hide_no_command():
    text = "```python\nx = 1\n```\n\n`kanana c`\n\n```sh\nkanana a\nkanana b  # said of it\n```\n"
    assert [c.words[1] for c in commands.of_text(text, "x.md")] == ["a", "b", "c"]
