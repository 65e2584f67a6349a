"""RoPE in a `config.json`: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5, or both."""

import math
from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.foreign import Fields, short
from kanana_jax.models.architecture import RopeScaling

_COMMON = ("factor", "original_max_position_embeddings")
_OWN = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_fast", "beta_slow", "attention_factor")}
_OTHERS = ("short_factor", "long_factor", "mscale", "mscale_all_dim", "truncate", "partial_rotary_factor")
_DECIDING = ("rope_theta", *_COMMON, *_OWN["llama3"], *_OWN["yarn"], *_OTHERS)
_MOST_TOKENS = 2**31 - 1


def rope_of(config: Fields, max_seq_len: int) -> tuple[float, RopeScaling | None]:
    """The base of the angular speeds, and their scaling, as transformers 5 computes them.

    Raises:
      UserError: keys that contradict each other, an unknown scaling, or one that lacks a key.
    """
    old, new = config.table("rope_scaling"), config.table("rope_parameters")
    if old and new:
        _refuse_different(config.where, old, new)
    scope = "rope_scaling" if old else "rope_parameters"
    rope = Fields(old or new, f"{config.where}: {scope}")
    theta = _theta(config, old, new)
    kind = _kind(rope)
    if rope.given("partial_rotary_factor") not in (None, 1) or rope.given("partial_rotary_factor") is True:
        raise rope.refusal("partial_rotary_factor", "1: every channel is rotated")
    if kind == "default":
        scaled = [key for key in (*_COMMON[:1], *_OWN["llama3"], *_OWN["yarn"]) if rope.given(key) not in (None, 1)]
        if scaled:
            raise UserError(f"{rope.where} has the key '{scaled[0]}' without a rope_type that it belongs to")
        return theta, None
    if kind not in _OWN:
        raise UserError(f"{config.where}: RoPE scaling {short(kind)} is not supported; known are llama3 and yarn")
    return theta, _scaling(kind, rope, config, theta, max_seq_len)


def _scaling(kind: str, rope: Fields, config: Fields, theta: float, max_seq_len: int) -> RopeScaling:
    for key in _COMMON[:1] + (_OWN["llama3"] if kind == "llama3" else ()):
        if rope.given(key) is None:
            raise UserError(f"{config.where}: RoPE scaling '{kind}' needs the key '{key}'")
    own = config.given("original_max_position_embeddings")
    length = rope.given("original_max_position_embeddings")
    if own is not None and length is not None and own != length:
        raise UserError(
            f"{config.where}: original_max_position_embeddings is {short(own)}, and {short(length)} in {rope.where}: "
            "remove the one that is wrong"
        )
    given = Fields({"original_max_position_embeddings": max_seq_len if length is None else length}, rope.where)
    if length is None and own is not None:
        given = Fields({"original_max_position_embeddings": own}, config.where)
    values: dict[str, Any] = {
        "type": kind,
        "factor": rope.number("factor", least=1.0),
        "original_max_position_embeddings": given.integer("original_max_position_embeddings", _MOST_TOKENS),
    }
    if kind == "llama3":
        low, high = (rope.number(key, above=True) for key in _OWN["llama3"])
        if low >= high:
            raise rope.refusal("low_freq_factor", f"less than high_freq_factor ({high:g})")
        return RopeScaling(**values, low_freq_factor=low, high_freq_factor=high)
    if theta <= 1:
        raise UserError(f"{config.where}: RoPE scaling 'yarn' needs a rope_theta of more than 1, not {theta:g}")
    if rope.given("truncate") is not None and rope.given("truncate") is not True:
        raise rope.refusal("truncate", "true")
    for key in _OWN["yarn"]:
        if rope.given(key) is not None:
            values[key] = rope.number(key, above=True)
    if "attention_factor" not in values:
        values |= _mscale(rope, values["factor"])
    return RopeScaling(**values)


def _mscale(rope: Fields, factor: float) -> dict[str, float]:
    """DeepSeek's two weights of YaRN's temperature (arXiv:2405.04434): they count where both are there."""
    weights = [0.0 if rope.given(key) is None else rope.number(key) for key in ("mscale", "mscale_all_dim")]
    if not all(weights):
        return {}
    first, second = (0.1 * weight * math.log(factor) + 1.0 for weight in weights)
    return {"attention_factor": first / second}


def _kind(rope: Fields) -> Any:
    given = {key: rope.values[key] for key in ("rope_type", "type") if key in rope.values}
    if len(given) == 2 and given["rope_type"] != given["type"]:
        raise UserError(
            f"{rope.where} has rope_type {short(given['rope_type'])} and type {short(given['type'])}: remove one"
        )
    kind = next(iter(given.values()), "default")
    if not isinstance(kind, str):
        raise UserError(f"{rope.where}: rope_type = {short(kind)} is not supported; it must be a name")
    return kind


def _theta(config: Fields, old: dict[str, Any], new: dict[str, Any]) -> float:
    places = [("rope_theta", config), ("rope_scaling.rope_theta", Fields(old, f"{config.where}: rope_scaling"))]
    places.append(("rope_parameters.rope_theta", Fields(new, f"{config.where}: rope_parameters")))
    found = {name: f.number("rope_theta", above=True) for name, f in places if f.given("rope_theta") is not None}
    if len(set(found.values())) > 1:
        told = " and ".join(f"{name} {value:g}" for name, value in found.items())
        raise UserError(f"{config.where}: {told} contradict each other: remove the one that is wrong")
    if found:
        return next(iter(found.values()))
    for _, fields in places:
        if "rope_theta" in fields.values:
            raise fields.refusal("rope_theta", "a number")
    return config.defaults.get("rope_theta", 10_000.0)


def _refuse_different(where: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Both sections, the one of transformers 4 and the one of 5, must say the same."""
    kinds = [_kind(Fields(section, where)) for section in (old, new)]
    pairs = [("rope_type", *kinds)]
    pairs += [(key, old.get(key), new.get(key)) for key in _DECIDING if key != "rope_theta"]
    for key, a, b in pairs:
        if a != b or isinstance(a, bool) != isinstance(b, bool):
            raise UserError(
                f"{where}: {key} is {short(a)} in rope_scaling and {short(b)} in rope_parameters: remove the section "
                "that is wrong"
            )
