"""RoPE in a `config.json`: `rope_theta` and `rope_scaling` (transformers 4), `rope_parameters` (5), or both."""

import math
from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.foreign import Fields, short
from kanana_jax.models.architecture import RopeScaling

_COMMON = ("factor", "original_max_position_embeddings")
_OWN = {
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_fast", "beta_slow", "attention_factor"),
    "linear": (),
}
_OTHERS = ("short_factor", "long_factor", "mscale", "mscale_all_dim", "truncate", "partial_rotary_factor")
_DECIDING = ("rope_theta", *_COMMON, *_OWN["llama3"], *_OWN["yarn"], *_OTHERS)
_MOST_TOKENS = 2**31 - 1
_TYPES = ("full_attention", "sliding_attention")


def rope_of(config: Fields, max_seq_len: int) -> tuple[float, RopeScaling | None]:
    """Theta, the base of RoPE's frequencies, and their scaling, as transformers 5 reads them.

    Raises:
      UserError: keys contradict each other, or the scaling is unknown or lacks a key.
    """
    old, new = config.table("rope_scaling"), config.table("rope_parameters")
    for scope, section in (("rope_scaling", old), ("rope_parameters", new)):
        tables = [key for key, value in section.items() if isinstance(value, dict)]
        if tables:
            raise UserError(
                f"{config.where}: {scope} has a table for {short(tables[0])}, but this class has a single RoPE"
            )
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
        raise UserError(f"{config.where}: RoPE scaling {short(kind)} is not supported; known are {', '.join(_OWN)}")
    return theta, _scaling(kind, rope, config, theta, max_seq_len)


def ropes_of(
    config: Fields, max_seq_len: int, thetas: tuple[float, float], local_key: str = ""
) -> list[tuple[float, RopeScaling | None]]:
    """The RoPE of full-attention layers and that of sliding-window layers: `rope_parameters` with a table for each.

    In older files, `rope_theta` and `rope_scaling` apply to full attention, and `local_key` is the other layers' theta.

    Args:
      thetas: default thetas of the two kinds of layers.
      local_key: the older key; empty: the family has none.

    Raises:
      UserError: see `rope_of`; or `rope_parameters` is one table for both kinds.
    """
    tables = config.table("rope_parameters")
    foreign = [key for key in tables if key not in _TYPES]
    if foreign:
        raise UserError(
            f"{config.where}: rope_parameters has the key {short(foreign[0])}, and this class reads tables for "
            f"{' and '.join(_TYPES)}: write them"
        )
    parts = []
    for kind, theta, old in zip(_TYPES, thetas, (("rope_theta", "rope_scaling"), (local_key, ""))):
        found = {new: config.given(key) for new, key in zip(("rope_theta", "rope_scaling"), old)}
        values = {key: value for key, value in found.items() if value is not None}
        table = Fields(tables, config.where).table(kind)
        where = f"{config.where}: {kind}" if kind in tables else config.where
        parts.append(rope_of(Fields(values | {"rope_parameters": table}, where, {"rope_theta": theta}), max_seq_len))
    return parts


def parameters(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """The table `rope_parameters` of one RoPE."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if scaling is None:
        return rope
    rope |= {"rope_type": scaling.type, "factor": scaling.factor}
    if scaling.type != "linear":
        rope["original_max_position_embeddings"] = scaling.original_max_position_embeddings
    if scaling.type == "llama3":
        rope |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
    if scaling.type == "yarn":
        rope |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        if scaling.attention_factor is not None:
            rope["attention_factor"] = scaling.attention_factor
    return rope


def to_config(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """The keys of one RoPE: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5."""
    rope = parameters(theta, scaling)
    old = None if scaling is None else {k: v for k, v in rope.items() if k != "rope_theta"}
    return {"rope_theta": theta, "rope_scaling": old, "rope_parameters": rope}


def _scaling(kind: str, rope: Fields, config: Fields, theta: float, max_seq_len: int) -> RopeScaling:
    for key in _COMMON[:1] + (_OWN["llama3"] if kind == "llama3" else ()):
        if rope.given(key) is None:
            raise UserError(f"{config.where}: RoPE scaling '{kind}' needs the key '{key}'")
    if kind == "linear":
        return RopeScaling("linear", rope.number("factor", least=1.0), max_seq_len)  # the original length has no effect
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
    """The attention factor from DeepSeek's two weights of YaRN's temperature (arXiv:2405.04434), if both are given."""
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
        values = " and ".join(f"{name} {value:g}" for name, value in found.items())
        raise UserError(f"{config.where}: {values} contradict each other: remove the one that is wrong")
    if found:
        return next(iter(found.values()))
    for _, fields in places:
        if "rope_theta" in fields.values:
            raise fields.refusal("rope_theta", "a number")
    return config.defaults.get("rope_theta", 10_000.0)


def _refuse_different(where: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuses a section of transformers 4 and one of transformers 5 that differ."""
    kinds = [_kind(Fields(section, where)) for section in (old, new)]
    pairs = [("rope_type", *kinds)]
    pairs += [(key, old.get(key), new.get(key)) for key in _DECIDING if key != "rope_theta"]
    for key, a, b in pairs:
        if a != b or isinstance(a, bool) != isinstance(b, bool):
            raise UserError(
                f"{where}: {key} is {short(a)} in rope_scaling and {short(b)} in rope_parameters: remove the section "
                "that is wrong"
            )
