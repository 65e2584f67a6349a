"""`--config.KEY=VALUE`: every key of the dataclasses, whether the file spells it or not, by the key's own type."""

import dataclasses
import pathlib
import subprocess
import sys
import typing

import pytest
from ml_collections import ConfigDict

from kanana_jax import config as config_lib
from kanana_jax.config.overrides import parse
from kanana_jax.config.sections import convert
from kanana_jax.errors import ConfigError
from kanana_jax.recipe import config as recipe_config


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float
    steps: int | None = None
    kind: typing.Literal["a", "b", 3] = "a"
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    maybe: Inner | None = None
    parts: dict[str, Inner] = dataclasses.field(default_factory=dict)
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    pair: tuple[int, float] = (0, 0.0)
    places: str | tuple[str, ...] = ""
    on: bool = False
    anything: typing.Any = None


def _outer(*assignments, **values):
    config = ConfigDict(values)
    config_lib.override(config, assignments, config_lib.schema_of(Outer))
    return config_lib.build(Outer, config, "")


@pytest.mark.parametrize(
    "text, value",
    [
        ("20M", 20_000_000),
        ("1e9", 1_000_000_000),
        ("20_000_000", 20_000_000),
        ("1.5B", 1_500_000_000),
        ("0.3T", 300_000_000_000),
        ("4k", 4_000),
        ("-3", -3),
        ("8.25e2", 825),
        ("12e3k", 12_000_000),
        ("9007199254740993", 9_007_199_254_740_993),  # more digits than a float holds
        ("none", None),
    ],
)
def test_numbers(text, value):
    assert _outer("inner.rate=1", f"inner.steps={text}").inner.steps == value


@pytest.mark.parametrize(
    "text", ["1.5", "many", "", "1M5", "0x10", "1e-3", "true", "inf", "1e999", "(1,)", "__import__('os')"]
)
def test_what_is_no_whole_number(text):
    with pytest.raises(ConfigError, match="config 'inner.steps' must be of type"):
        _outer("inner.rate=1", f"inner.steps={text}")


def test_types():
    made = _outer(
        "inner.rate=4e-3", "inner.kind=3", "inner.names=a, b", "maybe.rate=1", "parts.x.rate=2k", "shares={'ko': 1, 'en': 0.5}",
        "shares.ja=.25", "pair=(1,2)", "places=a,b", "on=True", "anything=[1, 'x']",
    )  # fmt: skip
    assert made == Outer(
        Inner(0.004, None, 3, ("a", "b")), Inner(1.0), {"x": Inner(2000.0)}, {"ko": 1.0, "en": 0.5, "ja": 0.25},
        (1, 2.0), "a,b", True, [1, "x"],
    )  # fmt: skip


def test_sections_that_the_config_lacks_or_holds_as_none_or_as_dataclasses():
    assert _outer("maybe.rate=3", "maybe.names=[]", inner=Inner(1.0), maybe=None).maybe == Inner(3.0)
    assert _outer("inner.names=x", inner=Inner(1.0, 5)).inner == Inner(1.0, 5, "a", ("x",))
    assert _outer("maybe=none", inner=Inner(1.0), maybe={"rate": 2.0}).maybe is None


@pytest.mark.parametrize(
    "assignment, words",
    [
        ("inner=3", ["'inner' is a section", "rate, steps, kind, names"]),
        ("inner.rate.x=3", ["inner.rate", "no key 'x'"]),
        ("inner.stepz=3", ["inner.stepz", "did you mean 'steps'"]),
        ("parts.x.stepz=3", ["parts.x.stepz", "did you mean 'steps'"]),
        ("inner.kind=c", ["inner.kind", "'a', 'b', 3"]),
        ("on=1", ["'on'", "bool"]),
        ("pair=1,x", ["pair[1]", "float"]),
        ("shares=[1]", ["'shares'", "dict"]),
        ("shares={'a': 'b'}", ["shares.a", "float"]),
        ("shares", ["needs a value"]),
        ("=1", ["unknown config key ''"]),
    ],
)
def test_mistakes_name_the_key(assignment, words):
    with pytest.raises(ConfigError) as caught:
        _outer("inner.rate=1", assignment)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value


def _leaves(hints, path=""):
    for name, hint in hints.items():
        at = f"{path}.{name}" if path else name
        choices = [c for c in typing.get_args(hint) or (hint,) if c is not type(None)] if _is_union(hint) else [hint]
        section = next((c for c in choices if dataclasses.is_dataclass(c)), None)
        named = typing.get_args(choices[0])[1] if typing.get_origin(choices[0]) is dict else None
        if section is not None:
            yield from _leaves(
                {f.name: typing.get_type_hints(section)[f.name] for f in dataclasses.fields(section)}, at
            )
        elif named is not None:
            yield from _leaves({"ko": named}, at)
        else:
            yield at, hint, choices[0]


def _is_union(hint):
    return typing.get_origin(hint) is typing.Union or type(hint).__name__ == "UnionType"


def _sample(hint):
    if typing.get_origin(hint) is typing.Literal:
        return str(typing.get_args(hint)[-1])
    if typing.get_origin(hint) is tuple:
        args = [a for a in typing.get_args(hint) if a is not Ellipsis]
        return f"({','.join(_sample(a) for a in args)},)"
    if dataclasses.is_dataclass(hint):
        return "{}"
    return {int: "2M", float: "5e-1", bool: "true", str: "x"}.get(hint, "1")


def test_every_key_of_a_recipe_and_its_stages_can_be_set(tiny_config):
    leaves = [leaf for leaf in _leaves(recipe_config.schema(tiny_config())) if leaf[0] != "profile"]  # no value of a config
    names = {at for at, _, _ in leaves}
    assert {"runtime.compute_dtype", "runtime.remat", "tokenizer.path", "stage1.start", "stage2.model.rope_scaling.factor",
            "student.train.accumulate", "stage1.train.z_loss", "plan.prices.ko", "sources.ko.path"} <= names  # fmt: skip
    assert len(leaves) > 300
    for at, hint, choice in leaves:
        config = tiny_config(f"{at}={_sample(choice)}") if at not in ("stages", "stage1.kind") else tiny_config()
        value = config
        for name in at.split("."):
            value = value[name]
        convert(hint, value, at)


def test_a_stage_can_be_added_and_its_keys_are_its_kinds(tiny_config):
    config = tiny_config(
        "stages=stage1,more", "more.kind=pretrain", "more.start=stage1", "more.mixture.ko_news=1", "more.train.tokens=1k",
        "more.train.batch_tokens=512", "more.train.seq_len=64", "more.train.optimizer.learning_rate=1e-3",
    )  # fmt: skip
    _, stages = recipe_config.parse(config)
    assert stages["more"].mixture == {"ko_news": 1.0} and stages["more"].train.tokens == 1000
    with pytest.raises(ConfigError, match="unknown config key 'upscaled.train'"):
        tiny_config("upscaled.train.tokens=5")


@pytest.mark.parametrize("text", ["((((", "'" * 3, "[" * 5000, "\0", "{", "1,,2", "١٢"])
def test_any_text_is_a_text(text):
    assert parse(str, text, "x") == (text[1:-1] if text[:1] == text[-1:] == "'" else text)
    assert parse(typing.Any, text, "x") is not None
    with pytest.raises(ConfigError):
        parse(int, text, "x")


def test_on_the_command_line(tmp_path):
    """What the file does not spell reaches the run: here a value that the recipe refuses by name."""
    command = [sys.executable, "-m", "kanana_jax", "run", "--config", "tiny:test", "--workdir", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, "--config.runtime.compute_dtype=bfloat17"], capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[1]
    )  # fmt: skip
    assert done.returncode == 2 and "runtime.compute_dtype" in done.stderr and "'bfloat16'" in done.stderr
