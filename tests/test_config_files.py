"""Configs as files and by name: what they may import, and what is said where there is none."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.errors import ConfigError

NAMES = sorted(
    str(file.relative_to(ROOT / "configs").with_suffix(""))
    for file in (ROOT / "configs").rglob("*.py")
    if file.name != "__init__.py"
)


def _file(folder, text, name="mine.py"):
    (folder / name).write_text(text)
    return str(folder / name)


USES_HELPER = "from ml_collections import ConfigDict\nimport {0}\ndef get_config(arg=''):\n    import {0} as late\n    return ConfigDict(dict(value={0}.VALUE, again=late.VALUE, arg=arg))\n"


def test_a_config_imports_what_lies_beside_it_and_nothing_of_the_current_folder(tmp_path, monkeypatch):
    beside, here = tmp_path / "beside", tmp_path / "here"
    beside.mkdir(), here.mkdir()
    _file(beside, "VALUE = 1", "helper_of_mine.py")
    _file(here, "VALUE = 2", "helper_of_mine.py")
    _file(here, "VALUE = 3", "only_here.py")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend("")
    before = list(sys.path)
    config = config_lib.read_config_file(_file(beside, USES_HELPER.format("helper_of_mine")) + ":x")
    assert (config.value, config.again, config.arg) == (1, 1, "x")
    with pytest.raises(ConfigError, match="No module named 'only_here'.*files beside itself"):
        config_lib.read_config_file(_file(beside, USES_HELPER.format("only_here"), "other.py"))
    assert sys.path == before and "helper_of_mine" not in sys.modules


def test_two_configs_have_each_its_own_helper(tmp_path):
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        _file(folder, f"VALUE = {number}", "common.py")
        assert config_lib.read_config_file(_file(folder, USES_HELPER.format("common"))).value == number


def test_installed_configs_go_by_name(tmp_path):
    """From any folder; a name is the file below `configs/`."""
    program = (
        "from kanana_jax.config import read_config_file as read\n"
        "assert read('tiny:test').stages == read({file!r}).stages\n"
        "assert read('kanana/chain').name == 'chain'\n"
    ).format(file=f"{ROOT / 'configs/tiny.py'}:test")
    subprocess.run([sys.executable, "-P", "-c", program], check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""})
    with pytest.raises(ConfigError, match="'tinny' does not exist: .*did you mean 'tiny'"):
        config_lib.read_config_file("tinny")


def test_what_lies_in_the_current_folder_hides_no_installed_config(tmp_path, monkeypatch):
    _file(tmp_path, "raise RuntimeError('shadowed')", "ml_collections.py")
    (tmp_path / "tiny").write_text("not Python")
    program = "from kanana_jax.config import read_config_file as read; print(read('tiny:test').name)"
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout == "tiny\n", found.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_config_can_be_imported_by_its_installed_name(name):
    import importlib

    importlib.import_module(f"kanana_jax.configs.{name.replace('/', '.')}")


def test_a_file_without_a_config_is_one_sentence(tmp_path):
    for text, told in (
        ("x = 1", "has no function get_config"),
        ("def get_config(:", "mine.py:1: "),
        ("def get_config(): pass", "must return a ConfigDict, not NoneType"),
        ("def get_config(): return nope", "get_config\\(''\\) failed: name 'nope'"),
        ("import math\nmath.nope", "mine.py: module 'math' has no attribute 'nope'"),
    ):
        with pytest.raises(ConfigError, match=told):
            config_lib.read_config_file(_file(tmp_path, text))
