"""The architectures of llama.cpp: the models that each computes, and the keys of its hyperparameters.

Taken from llama.cpp's `src/models/` (release v0.4.0, 2026). A model is written as the first architecture that computes
its function. Checks return a description of what cannot be computed, or an empty string.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families.family import ANY, canonical
from kanana_jax.interop.foreign import short
from kanana_jax.models.architecture import Architecture, LayerKind

Keys = dict[str, Any]
# Fields that need no list of allowed values; RoPE scaling and kinds of layers are checked separately.
_COMMON = frozenset(
    ("vocab_size", "embed_dim", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "tied_embeddings",
     "max_seq_len", "rope_theta", "norm_eps", "init_std", "rope_scaling", "layer_pattern")
)  # fmt: skip
_BIASES = {"attention_bias": ANY, "mlp_bias": ANY}
_QWEN_SCALINGS, _ALL_SCALINGS = ("yarn", "linear"), ("llama3", "yarn", "linear")


def _all_alike(a: Architecture) -> str:
    return "" if set(a.kinds) == {LayerKind()} else "layer_pattern"


def _no_keys(a: Architecture) -> Keys:
    del a
    return {}


@dataclasses.dataclass(frozen=True, eq=False)
class LlamaCpp:
    """One architecture of llama.cpp.

    Attributes:
      name: value of `general.architecture`.
      families: Hugging Face model types whose models it computes, for messages.
      fields: fields of `Architecture`, each with the supported values (`ANY`: all); others must have their default.
      scalings: supported types of RoPE scaling.
      check: describes what it cannot compute of a model's layers and factors; empty if there is nothing.
      keys: makes the keys other than the common ones, without the architecture's name as a prefix.
      neighbours: RoPE pairs channel `2i` with `2i + 1`, not `i` with `i + h/2`.
      square: heads · head_dim must equal the width.
      output: `tied`: only models with a tied output matrix; `copied`: a tied output matrix is written a second time;
        `any`: tied or not.
      experts: number of experts that the MLP is split into, all of which are always active; 0: no split.
    """

    name: str
    families: tuple[str, ...]
    fields: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    scalings: tuple[str, ...] = _QWEN_SCALINGS
    check: Callable[[Architecture], str] = _all_alike
    keys: Callable[[Architecture], Keys] = _no_keys
    neighbours: bool = False
    square: bool = False
    output: str = "any"
    experts: int = 0

    def lacks(self, a: Architecture) -> list[str]:
        """The parts of a model that the architecture does not support; empty: it computes the same function."""
        found = []
        for field in dataclasses.fields(Architecture):
            value, allowed = getattr(a, field.name), self.fields.get(field.name, (field.default,))
            if field.name not in _COMMON and allowed is not ANY and value not in allowed:
                found.append(f"{field.name} {short(value)}")
        scaling = a.rope_scaling
        if scaling is not None and scaling.type not in self.scalings:
            found.append(f"rope_scaling '{scaling.type}'")
        if scaling is not None and scaling.type == "yarn" and (scaling.beta_fast, scaling.beta_slow) != (32.0, 1.0):
            found.append("rope_scaling 'yarn' with a beta_fast other than 32 or a beta_slow other than 1")
        if self.square and a.num_heads * a.head_dim != a.embed_dim:
            found.append(f"heads of {a.num_heads} · {a.head_dim} channels in a width of {a.embed_dim}")
        if self.output == "tied" and not a.tied_embeddings:
            found.append("separate output matrix")
        if self.experts and a.mlp_dim % self.experts:
            found.append(f"mlp_dim {a.mlp_dim} that is not a multiple of {self.experts}")
        complaint = "" if found else self.check(a)
        return [complaint] if complaint else found


def window_period(a: Architecture) -> int | None:
    """The period p of windows: the last of every p layers has full attention; 0: no layer has; None: no such period."""
    windowed = [kind.window > 0 for kind in a.kinds]
    if all(windowed):
        return 0
    periods = range(1, len(windowed) + 1)
    return next((p for p in periods if all(w == (i % p < p - 1) for i, w in enumerate(windowed))), None)


def _one_window(a: Architecture, *, period: bool = True) -> str:
    if len({kind.window for kind in a.kinds if kind.window}) > 1:
        return "layer_pattern with windows of several sizes"
    return "layer_pattern of another order" if period and window_period(a) is None else ""


def _window_keys(a: Architecture) -> Keys:
    window = max(kind.window for kind in a.kinds)
    if not window:
        return {}
    return {"attention.sliding_window": window, "attention.sliding_window_pattern": window_period(a)}


def _scaled_alone(a: Architecture) -> str:
    """The reason to refuse a RoPE other than the model's, unscaled in layers with a window; empty: there is none."""
    for kind in set(a.kinds):
        unscaled = kind.window > 0 and a.rope_scaling is not None
        if kind != LayerKind(kind.window, rope_scaled=not unscaled):
            return "layer_pattern with this RoPE"
    return ""


def _smollm3(a: Architecture) -> str:
    wanted = [LayerKind(rope=(i + 1) % 4 != 0) for i in range(a.num_layers)]
    return "" if list(a.kinds) == wanted else "layer_pattern other than RoPE in all but every fourth layer"


def _exaone4(a: Architecture) -> str:
    """Only its model of 64 layers has windows, and then no RoPE in layers without a window."""
    if a.num_layers != 64:
        return _all_alike(a) and f"layer_pattern in {a.num_layers} layers, which are not 64"
    if any(kind != LayerKind(kind.window, rope=kind.window > 0) for kind in a.kinds):
        return "layer_pattern with RoPE in layers without a window"
    return _one_window(a)


def _gemma_scale(a: Architecture, large: int) -> str:
    """The reason to refuse factors other than llama.cpp's own, for which models of `large` layers have another rule."""
    scale = (a.embed_dim // a.num_heads if a.num_layers == large else a.head_dim) ** -0.5
    if not math.isclose(a.attention_scale, scale, rel_tol=1e-6):
        return f"attention_multiplier {a.attention_scale:g} where its sizes give {scale:g}"
    if not math.isclose(a.embedding_multiplier, math.sqrt(a.embed_dim), rel_tol=1e-6):
        return f"embedding_multiplier {a.embedding_multiplier:g} where √embed_dim is {a.embed_dim**0.5:g}"
    return ""


def _gemma2(a: Architecture) -> str:
    if not a.attention_softcap or not a.logits_softcap:
        return "model without attention_softcap and logits_softcap"
    if any(kind != LayerKind(kind.window) for kind in a.kinds):
        return "layer_pattern with several RoPEs"
    return _one_window(a) or _gemma_scale(a, 46)


def _gemma2_keys(a: Architecture) -> Keys:
    caps = {"attn_logit_softcapping": a.attention_softcap, "final_logit_softcapping": a.logits_softcap}
    # llama.cpp always gives it layers with a window; one as long as the context hides nothing.
    return caps | (_window_keys(a) or {"attention.sliding_window": a.max_seq_len})


def _gemma3(a: Architecture) -> str:
    for kind in set(a.kinds):
        sliding = LayerKind(kind.window, True, kind.rope_theta, a.rope_scaling is None)
        if kind != (sliding if kind.window else LayerKind()):
            return "layer_pattern with this RoPE"
    if len({kind for kind in a.kinds if kind.window}) > 1:
        return "layer_pattern with several kinds of windows"
    return _one_window(a) or _gemma_scale(a, 62)


def _gemma3_keys(a: Architecture) -> Keys:
    caps = {"final_logit_softcapping": a.logits_softcap} if a.logits_softcap else {}
    sliding = next((kind for kind in a.kinds if kind.window), None)
    theta = {} if sliding is None else {"rope.freq_base_swa": sliding.rope_theta or a.rope_theta}
    return caps | _window_keys(a) | theta


def _granite_keys(a: Architecture) -> Keys:
    return {
        "logit_scale": 1.0 / a.logits_multiplier,
        "residual_scale": a.residual_multiplier,
        "embedding_scale": a.embedding_multiplier,
        "attention.scale": a.attention_scale,
    }


def _mellum(a: Architecture) -> str:
    return _one_window(a, period=False) or _scaled_alone(a)


def _mellum_keys(a: Architecture) -> Keys:
    experts = {
        "expert_count": _EXPERTS,
        "expert_used_count": _EXPERTS,
        "expert_feed_forward_length": a.mlp_dim // _EXPERTS,
    }
    window = _window_keys(a)
    if window and window["attention.sliding_window_pattern"] is None:
        window["attention.sliding_window_pattern"] = [kind.window > 0 for kind in a.kinds]
    return experts | window


_EXPERTS = 2
_GEMMA = {
    "norm_placement": ("both",),
    "norm_unit_offset": (True,),
    "activation": ("gelu_tanh",),
    "embedding_multiplier": ANY,
    "attention_multiplier": ANY,
    "logits_softcap": ANY,
}
_MULTIPLIERS = dict.fromkeys(
    ("embedding_multiplier", "residual_multiplier", "logits_multiplier", "attention_multiplier"), ANY
)
ARCHITECTURES = (
    LlamaCpp(
        "llama", ("llama", "mistral"), _BIASES | {"attention_bias": ("none", "qkvo")}, _ALL_SCALINGS, neighbours=True,
    ),
    LlamaCpp("qwen2", ("qwen2",), {"attention_bias": ("qkv",)}, square=True),
    LlamaCpp("qwen3", ("qwen3",), {"qk_norm": ("head",), "attention_bias": ("none", "qkv")}),
    LlamaCpp("smollm3", ("smollm3",), check=_smollm3, neighbours=True),
    LlamaCpp(
        "olmo2", ("olmo2", "olmo3"), {"qk_norm": ("width",), "norm_placement": ("post",)},
        check=lambda a: _one_window(a) or _scaled_alone(a), keys=_window_keys, square=True, output="copied",
    ),
    LlamaCpp(
        "exaone4", ("exaone4",), {"qk_norm": ("head",), "norm_placement": ("post",)}, _ALL_SCALINGS,
        check=_exaone4, keys=_window_keys, square=True,
    ),
    LlamaCpp(
        "gemma2", ("gemma2",), _GEMMA | {"attention_softcap": ANY}, check=_gemma2, keys=_gemma2_keys, output="tied",
    ),
    LlamaCpp("gemma3", ("gemma3",), _GEMMA | {"qk_norm": ("head",)}, ("linear",), check=_gemma3, keys=_gemma3_keys),
    LlamaCpp(
        "granite", ("hyperclovax",), _BIASES | _MULTIPLIERS, _ALL_SCALINGS, keys=_granite_keys, neighbours=True,
    ),
    # llama.cpp has Qwen3's block with windows only with experts. An MLP is the sum of its two halves, so it is written
    # as two experts that are both always active.
    LlamaCpp(
        "mellum", ("kanana2_tiny",), {"qk_norm": ("head",)},
        check=_mellum, keys=_mellum_keys, output="copied", experts=_EXPERTS,
    ),
)  # fmt: skip


def architecture_of(a: Architecture, where: str) -> LlamaCpp:
    """The first architecture of llama.cpp that computes a model.

    Args:
      where: name of the model, for messages.

    Raises:
      UserError: there is none.
    """
    a = canonical(a)
    found = {spec: spec.lacks(a) for spec in ARCHITECTURES}
    for spec, lacking in found.items():
        if not lacking:
            return spec
    nearest = min(found, key=lambda spec: len(found[spec]))
    known = ", ".join(family for spec in ARCHITECTURES for family in spec.families)
    raise UserError(
        f"{where}: llama.cpp does not compute this model: the nearest of its architectures, {nearest.name}, has no "
        f"{' and no '.join(found[nearest])}; families that it has: {known}"
    )
