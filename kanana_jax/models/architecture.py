"""The shape of a model (`Architecture`), apart from how it is run (`Runtime`)."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from kanana_jax import config as config_lib

DType = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Scaling of RoPE frequencies beyond the context of pre-training.

    `llama3`: Llama 3.1's piecewise rule on wavelengths. `yarn`: arXiv:2309.00071, §3. `linear`: every position divided
    by `factor` (arXiv:2306.15595, eq. 3).
    Field names are those of Hugging Face's `rope_scaling`.
    """

    type: Literal["llama3", "yarn", "linear"]
    factor: float
    original_max_position_embeddings: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def __post_init__(self):
        if self.factor < 1:
            raise ValueError(f"rope scaling factor must be at least 1, not {self.factor}")
        if self.original_max_position_embeddings < 1:
            raise ValueError("rope scaling needs original_max_position_embeddings > 0")


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """The attention of one layer, for models whose layers are not all alike.

    Attributes:
      window: most keys that a token sees, including its own; 0: all earlier ones.
      rope: whether queries and keys are rotated; without, only the mask tells the layer about order (NoPE,
        arXiv:2305.19466).
      rope_theta: base of the angular speeds; 0: that of the model.
      rope_scaled: whether the model's `rope_scaling` applies in this layer.
    """

    window: int = 0
    rope: bool = True
    rope_theta: float = 0.0
    rope_scaled: bool = True

    def __post_init__(self):
        if self.window < 0 or self.rope_theta < 0:
            raise ValueError(f"window ({self.window}) and rope_theta ({self.rope_theta:g}) must not be negative")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The shape of a decoder: everything that determines its parameters and logits. The defaults are Llama 3's.

    RMSNorm, RoPE, grouped-query attention with an explicit `head_dim`, a gated MLP. Query heads are ordered by group:
    heads `[k·G, (k+1)·G)` read KV head `k`, with `G = num_heads / num_kv_heads`.

    Attributes:
      qk_norm: RMSNorm of queries and keys before RoPE: over each head (Qwen3, arXiv:2505.09388, §2) or over the whole
        width (OLMo 2, arXiv:2501.00656, §3.2).
      norm_placement: RMSNorm of the inputs of attention and MLP (`pre`), of their outputs (`post`, OLMo 2),
        or `both` (Gemma 2, arXiv:2408.00118, §2).
      norm_unit_offset: gains are stored as offsets from 1 (Gemma).
      attention_bias: biases of the query, key and value projections, and of the output projection.
      mlp_bias: biases of all three projections.
      activation: activation of the MLP's gate; `gelu_tanh` is the approximation by tanh (arXiv:1606.08415, §2).
      layer_pattern: the layers' kinds, repeated from the first layer on; the last repetition may be incomplete. Empty:
        all layers see everything and have the model's RoPE.
      partial_rotary_factor: share of a head's channels, from the first, that is rotated.
      embedding_multiplier, residual_multiplier, logits_multiplier: factors on embedded tokens, on outputs of
        attention and MLP, and on the logits (muP, arXiv:2203.03466).
      attention_multiplier: factor on q·k; 0: 1/√head_dim.
      attention_softcap, logits_softcap: c in c·tanh(x/c) of attention's logits and of the model's (Gemma 2, §2); 0:
        none.
    """

    vocab_size: int
    embed_dim: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    tied_embeddings: bool = False
    max_seq_len: int = 8192
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    init_std: float = 0.02
    qk_norm: Literal["none", "head", "width"] = "none"
    norm_placement: Literal["pre", "post", "both"] = "pre"
    norm_unit_offset: bool = False
    attention_bias: Literal["none", "qkv", "qkvo"] = "none"
    mlp_bias: bool = False
    activation: Literal["silu", "gelu_tanh"] = "silu"
    layer_pattern: tuple[LayerKind, ...] = ()
    partial_rotary_factor: float = 1.0
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_multiplier: float = 1.0
    attention_multiplier: float = 0.0
    attention_softcap: float = 0.0
    logits_softcap: float = 0.0

    def __post_init__(self):
        for field in ("vocab_size", "embed_dim", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, not {getattr(self, field)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        if self.head_dim % 2 or self.rotary_dim % 2 or not 2 <= self.rotary_dim <= self.head_dim:
            raise ValueError(
                f"head_dim ({self.head_dim}) and the part of it that is rotated ({self.rotary_dim}) must be even"
            )
        for field in ("attention_multiplier", "attention_softcap", "logits_softcap"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must not be negative, as {getattr(self, field):g} is")

    @property
    def group_size(self) -> int:
        """Query heads for each KV head (`G`)."""
        return self.num_heads // self.num_kv_heads

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that RoPE rotates."""
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def attention_scale(self) -> float:
        """Factor on q·k."""
        return self.attention_multiplier or self.head_dim**-0.5

    @property
    def period(self) -> tuple[LayerKind, ...]:
        """`layer_pattern`, or that of a model whose layers are alike."""
        return self.layer_pattern or (LayerKind(),)

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """The kind of every layer."""
        period = self.period
        return tuple(period[i % len(period)] for i in range(self.num_layers))

    def to_dict(self) -> dict[str, Any]:
        """All fields except newer ones at their default, so that hashes of a model are the same in every version."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in _YOUNGER or v != _YOUNGER[k]}

    @staticmethod
    def from_dict(values: Any, path: str = "model") -> "Architecture":
        """Raises `ConfigError` for unknown keys, wrong types and impossible shapes."""
        if hasattr(values, "get") and isinstance(values.get("qk_norm"), bool):  # of the first versions
            values = {**values, "qk_norm": "head" if values["qk_norm"] else "none"}
        return config_lib.build(Architecture, values, path)


# Fields of the first models on disk; a newer field at its default is left out of hashes.
_FIRST = frozenset((
    "vocab_size", "embed_dim", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "tied_embeddings",
    "max_seq_len", "rope_theta", "rope_scaling", "norm_eps", "init_std",
))  # fmt: skip
_YOUNGER = {field.name: field.default for field in dataclasses.fields(Architecture) if field.name not in _FIRST}


def pattern_of(kinds: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    """The shortest `layer_pattern` that gives layers these kinds.

    In linear time: a period of n layers is n less a border, the length of a beginning that is an end too (Knuth, Morris
    and Pratt, SIAM J. Comput. 6:2, 1977).
    """
    names: dict[LayerKind, int] = {}
    word = [names.setdefault(kind, len(names)) for kind in kinds]
    border = [0] * len(word)
    for i in range(1, len(word)):
        length = border[i - 1]
        while length and word[length] != word[i]:
            length = border[length - 1]
        border[i] = length + (word[length] == word[i])
    pattern = tuple(kinds[: len(word) - border[-1]])
    return () if pattern == (LayerKind(),) else pattern


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Execution options of a model. Dtypes affect the result; the others only change rounding.

    Attributes:
      param_dtype: dtype of the parameters, also on disk. Parameters trained in bfloat16 have a float32 master in
        the optimizer's state (`training/master.py`).
      compute_dtype: dtype of activations and matrix products (norms, softmax and losses are fp32).
      attention: `auto` picks the best for the platform; a named kernel that cannot run is an error.
      scan_layers: one compiled layer in a loop (fast to compile) or all layers unrolled.
      remat: the policy for recomputation in the backward pass (`layers.REMAT_POLICIES`).
    """

    param_dtype: DType = "float32"
    compute_dtype: DType = "float32"
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto"
    scan_layers: bool = True
    remat: Literal["none", "full", "dots", "context", "offload"] = "none"
