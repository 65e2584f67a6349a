"""Bad configs and bad commands: one sentence that names the key, exit code 2."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from kanana_jax import cli
from kanana_jax import config as config_lib
from kanana_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float
    steps: int = 3
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    parts: dict[str, Inner] = dataclasses.field(default_factory=dict)
    label: str | None = None

    def __post_init__(self):
        if self.inner.rate < 0:
            raise ValueError("rate must not be negative")


def test_build():
    built = config_lib.build(
        Outer, ConfigDict({"inner": {"rate": 1, "names": ["a"]}, "parts": {"x": {"rate": 2.5}}}), ""
    )
    assert built == Outer(Inner(1.0, 3, ("a",)), {"x": Inner(2.5)}) and isinstance(built.inner.rate, float)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"inner": {"rate": 1, "stepz": 1}}, ["inner.stepz", "did you mean 'steps'"]),
        ({"inner": {"rate": "fast"}}, ["inner.rate", "float", "'fast'"]),
        ({"inner": {"rate": 1.0, "steps": 2.5}}, ["inner.steps", "int"]),
        ({"inner": {"rate": 1.0, "steps": True}}, ["inner.steps", "int"]),
        ({"inner": {}}, ["inner.rate", "missing"]),
        ({"inner": 3}, ["inner", "section"]),
        ({"inner": {"rate": 1.0, "names": "ab"}}, ["inner.names", "list"]),
        ({"inner": {"rate": 1.0}, "parts": {"x": {"rate": None}}}, ["parts.x.rate"]),
        ({"inner": {"rate": -1.0}}, ["rate must not be negative"]),
        ({}, ["inner", "missing"]),
    ],
)
def test_mistakes_are_named(values, words):
    with pytest.raises(ConfigError) as caught:
        config_lib.build(Outer, values, "")
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override, words",
    [
        ("stage1.train.tokenz=5", ["stage1.train.tokenz", "did you mean 'tokens'"]),
        ("stage1.train.tokens=many", ["stage1.train.tokens", "int"]),
        ("sede=1", ["sede", "did you mean 'seed'"]),
        ("stage1.train=3", ["is a section"]),
        ("seed", ["needs a value"]),
    ],
)
def test_bad_overrides(tiny_config, override, words):
    with pytest.raises(ConfigError) as caught:
        tiny_config(override)
    assert all(word in str(caught.value) for word in words)


def test_good_overrides(tiny_config):
    config = tiny_config(
        "stage1.train.tokens=1_024", "stage1.train.optimizer.learning_rate=1", "runtime.scan_layers=true", "name=x y"
    )
    assert (config.stage1.train.tokens, config.stage1.train.optimizer.learning_rate) == (1024, 1.0)
    assert config.runtime.scan_layers is True and config.name == "x y"


RECIPE_MISTAKES = {
    "no such section": (lambda c: c.update(stages=("stage1", "stage3")), ["stage3", "no section"]),
    "unknown source": (lambda c: c.stage1.mixture.update({"ko_nwes": 0.1}), ["stage1.mixture.ko_nwes", "ko_news"]),
    "unknown filter": (lambda c: c.filters.update({"ke": {}}), ["filters.ke", "ko"]),
    "unknown key": (lambda c: c.update(evaluatoin=1), ["evaluatoin", "evaluation"]),
    "start later": (lambda c: c.update(stages=("stage2", "stage1")), ["stage2.start", "does not come before"]),
    "no model": (lambda c: c.stage1.update(start="elsewhere"), ["stage1", "model section"]),
    "batch": (lambda c: c.stage1.train.update(batch_tokens=100), ["stage1.train", "multiple of seq_len"]),
    "attention": (lambda c: c.runtime.update(attention="flash"), ["runtime.attention", "'xla'"]),
}


@pytest.mark.parametrize("what", RECIPE_MISTAKES)
def test_recipe_mistakes(tiny_config, what):
    from kanana_jax.recipe import run as recipe

    change, words = RECIPE_MISTAKES[what]
    config = tiny_config().unlock()
    change(config)
    with pytest.raises(ConfigError) as caught:
        recipe.parse(config)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.fixture
def kanana(monkeypatch, capsys):
    """Exit code, output and errors of a command in this process; tests/test_main.py starts some."""
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        try:
            code = cli.main(list(arguments))
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["run", "--config", "nowhere.py", "--workdir", "x"], 2, ["nowhere.py", "does not exist"]),
        (["run", "--config", "configs/tiny.py:big", "--workdir", "x"], 2, ["'test'"]),
        (
            ["run", "--config", "configs/tiny.py", "--workdir", "x", "--config.seeed=1"],
            2,
            ["seeed", "did you mean 'seed'"],
        ),
        (["run", "--config", "configs/tiny.py", "--workdir", "x", "--wrokdir", "y"], 2, ["--wrokdir"]),
        (["generate", "nowhere", "--prompt", "a"], 1, ["nowhere", "not a model"]),
        (["import", "nowhere", "out"], 1, ["nowhere", "no config.json"]),
        (["frobnicate"], 2, ["no verb 'frobnicate'"]),
    ],
)
def test_command_line_errors_are_one_sentence(kanana, arguments, code, words):
    found, _, told = kanana(*arguments)
    assert found == code
    assert "Traceback" not in told and all(word in told for word in words), told
    if code == 1 or "usage" not in told:
        assert len(told.strip().splitlines()) == 1


@pytest.mark.parametrize("verb", ["run", "import", "export", "generate", "chat", "tokenizer"])
def test_every_verb_has_help_with_an_example(kanana, verb):
    code, shown, _ = kanana(verb, "--help")
    assert code == 0 and f"kanana {verb}" in shown.split("example")[1]


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from kanana_jax import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'jax', 'flax', 'numpy', 'grain', 'tensorflow', 'orbax', 'matplotlib', 'ml_collections'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT)


def test_the_training_path_never_imports_tensorflow():
    program = "import sys; import kanana_jax.recipe.run, kanana_jax.report.run; assert not {'tensorflow', 'torch'} & set(sys.modules); import tensorboardX; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT)
