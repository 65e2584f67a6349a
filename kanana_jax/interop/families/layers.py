"""The layers' kinds in a `config.json`: `layer_types`, `sliding_window`, and RoPE by type of layer."""

from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import rope
from kanana_jax.interop.foreign import Fields, short
from kanana_jax.models.architecture import Architecture, LayerKind, pattern_of

FULL, SLIDING = "full_attention", "sliding_attention"
_NAMES = {"attention": FULL, FULL: FULL, SLIDING: SLIDING}
_MOST_TOKENS = 2**31 - 1
# Of classes that want an integer even where no layer has a window.
UNUSED_WINDOW = 4096


def types_of(config: Fields, num_layers: int) -> list[str] | None:
    """`layer_types`, or None where the key is missing or null.

    Raises:
      UserError: another number than the layers', or a kind of layer that is not known.
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
    """`sliding_window` where a layer slides, else 0.

    Raises:
      UserError: a layer slides, and there is no window.
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
    """Types of layers of which every `interval`-th is full."""
    return [SLIDING if (i + 1) % interval else FULL for i in range(num_layers)]


def interval_of(config: Fields, default: int) -> int:
    """`sliding_window_pattern`, under either of its names."""
    for key in ("sliding_window_pattern", "_sliding_window_pattern"):
        if config.given(key) is not None:
            return config.integer(key, _MOST_TOKENS)
    return default


def switched_types(config: Fields, num_layers: int) -> list[str]:
    """Types of Qwen's layers: the window is for a flag, and without `layer_types` for the last layers.

    Raises:
      UserError: a layer slides, and `use_sliding_window` is false.
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
    """`sliding_window` of an architecture whose windows are of one size; `unused` where there is none."""
    return next((kind.window for kind in a.kinds if kind.window), unused)


def one_window(a: Architecture) -> str:
    """A complaint about windows of several sizes, or nothing."""
    sizes = sorted({kind.window for kind in a.kinds if kind.window})
    return "" if len(sizes) < 2 else f"layer_pattern with windows of {sizes[0]} and {sizes[1]}"


def one_rope(a: Architecture) -> str:
    """A complaint about layers whose RoPE is not the model's, or nothing."""
    for kind in a.kinds:
        if kind != LayerKind(kind.window):
            return "layer_pattern with layers without RoPE" if not kind.rope else "layer_pattern with another RoPE"
    return ""


def windows_and_one_rope(a: Architecture) -> str:
    """A complaint about more than windows of one size, or nothing."""
    return one_window(a) or one_rope(a)


def rope_by_type(a: Architecture) -> str:
    """A complaint about a RoPE that does not follow from whether a layer slides, or nothing."""
    kinds = set(a.kinds)
    if any(not kind.rope for kind in kinds):
        return "layer_pattern with layers without RoPE"
    if any(not kind.window and kind != LayerKind() for kind in kinds):
        return "layer_pattern with another RoPE than the model's in layers that see everything"
    if one_window(a):
        return one_window(a)
    return "layer_pattern with several RoPEs in layers with a window" if len({k for k in kinds if k.window}) > 1 else ""


def ropes_to_config(a: Architecture) -> dict[str, Any]:
    """`rope_parameters` by type of layer."""
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
    """`rope_theta`, `rope_scaling` and `layer_pattern`: full layers have the model's RoPE, sliding ones their own.

    Args:
      types: of the layers.
      thetas: of full and of sliding layers, where none is given.
      local_key: an older key of the latter.

    Raises:
      UserError: as `rope.ropes_of`; no window; sliding layers have a scaling that is not the full ones'.
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
