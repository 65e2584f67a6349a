"""The kinds of layers in a `config.json`: `layer_types`, `sliding_window`, and RoPE by type of layer."""

from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import rope
from kanana_jax.interop.foreign import Fields, short
from kanana_jax.models.architecture import Architecture, LayerKind, pattern_of

FULL, SLIDING = "full_attention", "sliding_attention"
_NAMES = {"attention": FULL, FULL: FULL, SLIDING: SLIDING}
_MOST_TOKENS = 2**31 - 1
# Written for classes that require an integer even if no layer has a window.
UNUSED_WINDOW = 4096


def types_of(config: Fields, num_layers: int) -> list[str] | None:
    """`layer_types`, or None if the key is missing or null.

    Raises:
      UserError: the list does not have `num_layers` entries, or names an unknown kind of layer.
    """
    kinds = config.given("layer_types")
    if kinds is None:
        return None
    if not isinstance(kinds, list):
        raise config.refusal("layer_types", "a list of names")
    for kind in kinds:
        if not isinstance(kind, str) or kind not in _NAMES:
            raise UserError(
                f"{config.where}: a layer of type {short(kind)} is not supported (layer_types): known are '{FULL}' and "
                f"'{SLIDING}'"
            )
    if len(kinds) != num_layers:
        raise UserError(
            f"{config.where}: layer_types names {len(kinds)} layers, and num_hidden_layers says {num_layers}: correct "
            "the one that is wrong"
        )
    return [_NAMES[kind] for kind in kinds]


def window_of(config: Fields, types: list[str]) -> int:
    """`sliding_window` in tokens if any layer uses it, else 0.

    Raises:
      UserError: a layer uses a window, and none is given.
    """
    if SLIDING not in types:
        return 0
    if config.values.get("sliding_window", config.defaults.get("sliding_window")) is None:
        raise UserError(
            f"{config.where}: layer_types has a '{SLIDING}' and sliding_window is null: give the window, or make the "
            f"layer '{FULL}'"
        )
    return config.integer("sliding_window", _MOST_TOKENS)


def every(num_layers: int, interval: int) -> list[str]:
    """Types of layers with full attention in every `interval`-th layer and a sliding window in the others."""
    return [SLIDING if (i + 1) % interval else FULL for i in range(num_layers)]


def interval_of(config: Fields, default: int) -> int:
    """The period of layer types: `sliding_window_pattern`, under either of its names."""
    for key in ("sliding_window_pattern", "_sliding_window_pattern"):
        if config.given(key) is not None:
            return config.integer(key, _MOST_TOKENS)
    return default


def switched_types(config: Fields, num_layers: int) -> list[str]:
    """Types of layers in Qwen: `use_sliding_window` enables windows, without `layer_types` for the last layers only.

    Raises:
      UserError: a layer has a window, and `use_sliding_window` is false.
    """
    types, on = types_of(config, num_layers), config.flag("use_sliding_window")
    if types is not None:
        if SLIDING in types and not on:
            raise UserError(
                f"{config.where}: layer_types has a '{SLIDING}' and use_sliding_window is false: correct the one that "
                "is wrong"
            )
        return types
    if not on or config.values.get("sliding_window", 0) is None:
        return [FULL] * num_layers
    first = config.integer("max_window_layers", _MOST_TOKENS, 28, least=0)
    return [SLIDING if i >= first else FULL for i in range(num_layers)]


def types_to_config(a: Architecture) -> list[str]:
    """`layer_types` of an architecture."""
    return [SLIDING if kind.window else FULL for kind in a.kinds]


def window_to_config(a: Architecture, unused: int | None = UNUSED_WINDOW) -> int | None:
    """`sliding_window` of an architecture whose windows have one size; `unused` if there is no window."""
    return next((kind.window for kind in a.kinds if kind.window), unused)


def one_window(a: Architecture) -> str:
    """The reason to refuse windows of several sizes; empty: there are none."""
    sizes = sorted({kind.window for kind in a.kinds if kind.window})
    return "" if len(sizes) < 2 else f"layer_pattern with windows of {sizes[0]} and {sizes[1]}"


def one_rope(a: Architecture) -> str:
    """The reason to refuse layers without RoPE, or with another RoPE than the model's; empty: there are none."""
    for kind in a.kinds:
        if kind != LayerKind(kind.window):
            return "layer_pattern with layers without RoPE" if not kind.rope else "layer_pattern with another RoPE"
    return ""


def windows_and_one_rope(a: Architecture) -> str:
    """The reason to refuse anything but windows of one size and a single RoPE; empty: there is none."""
    return one_window(a) or one_rope(a)


def rope_by_type(a: Architecture) -> str:
    """The reason to refuse a RoPE that is not determined by whether a layer has a window; empty: there is none."""
    kinds = set(a.kinds)
    if any(not kind.rope for kind in kinds):
        return "layer_pattern with layers without RoPE"
    if any(not kind.window and kind != LayerKind() for kind in kinds):
        return "layer_pattern with another RoPE than the model's in layers that see everything"
    if one_window(a):
        return one_window(a)
    return "layer_pattern with several RoPEs in layers with a window" if len({k for k in kinds if k.window}) > 1 else ""


def ropes_to_config(a: Architecture) -> dict[str, Any]:
    """The tables `rope_parameters` by type of layer."""
    sliding = next((kind for kind in a.kinds if kind.window), LayerKind(rope_scaled=False))
    scaling = a.rope_scaling if sliding.rope_scaled else None
    return {
        FULL: rope.parameters(a.rope_theta, a.rope_scaling),
        SLIDING: rope.parameters(sliding.rope_theta or a.rope_theta, scaling),
    }


def rope_and_pattern(
    config: Fields,
    max_seq_len: int,
    types: list[str],
    thetas: tuple[float, float],
    local_key: str = "",
) -> dict[str, Any]:
    """Fields `rope_theta`, `rope_scaling` and `layer_pattern`; layers with a window have a RoPE of their own.

    Args:
      types: types of the layers.
      thetas: default thetas of layers with full attention and with a window.
      local_key: older key of the latter's theta; empty: the family has none.

    Raises:
      UserError: see `rope.ropes_of` and `window_of`; or the two kinds of layers have different scalings.
    """
    window = window_of(config, types)
    (theta, scaling), (local, own) = rope.ropes_of(config, max_seq_len, thetas, local_key)
    if SLIDING in types and own is not None and own != scaling:
        raise UserError(
            f"{config.where}: rope_parameters scales '{SLIDING}' in another way than '{FULL}', which is not supported"
        )
    slides = LayerKind(window, True, 0.0 if local == theta else local, own is not None or scaling is None)
    kinds = [slides if kind == SLIDING else LayerKind() for kind in types]
    return {"rope_theta": theta, "rope_scaling": scaling, "layer_pattern": pattern_of(kinds)}
