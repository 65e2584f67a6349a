"""The shape of a model (`Architecture`), apart from how it is run (`Runtime`)."""

import dataclasses
from typing import Any, Literal

from kanana_jax import config as config_lib

DType = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Scaling of RoPE frequencies beyond the context of pre-training.

    `llama3`: Llama 3.1's piecewise rule on wavelengths. `yarn`: arXiv:2309.00071, §3.
    Field names are those of Hugging Face's `rope_scaling`.
    """

    type: Literal["llama3", "yarn"]
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
class Architecture:
    """The shape of a Llama-3 model: everything that decides its parameters and its logits.

    RMSNorm, RoPE, grouped-query attention with an explicit `head_dim`, SwiGLU, no biases. Query
    heads are ordered by group: heads `[k·G, (k+1)·G)` read KV head `k`, with
    `G = num_heads / num_kv_heads`. With `qk_norm` each head's queries and keys go through an RMSNorm before RoPE
    (Qwen3, arXiv:2505.09388, §2).
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
    qk_norm: bool = False

    def __post_init__(self):
        for field in ("vocab_size", "embed_dim", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, not {getattr(self, field)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for RoPE, not {self.head_dim}")

    @property
    def group_size(self) -> int:
        """Query heads for each KV head (`G`)."""
        return self.num_heads // self.num_kv_heads

    def to_dict(self) -> dict[str, Any]:
        """All fields, but for younger ones at their default: hashes of a model are the same in every version."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in _YOUNGER or v != _YOUNGER[k]}

    @staticmethod
    def from_dict(values: Any, path: str = "model") -> "Architecture":
        """Raises `ConfigError` for unknown keys, wrong types and impossible shapes."""
        return config_lib.build(Architecture, values, path)


_YOUNGER = {"qk_norm": False}  # than the first models on disk, and their defaults


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Execution options of a model. Dtypes affect the result; all others change rounding only.

    Attributes:
      param_dtype: dtype of the parameters, also on disk. Those that are trained in bfloat16 have a float32 master in
        the optimizer's state (`training/master.py`).
      compute_dtype: dtype of activations and matrix products (norms, softmax and losses are fp32).
      attention: `auto` takes the best for the platform; a named one that cannot run is an error.
      scan_layers: one compiled layer in a loop (fast to compile) or all layers unrolled.
      remat: what the backward pass recomputes; see `layers.REMAT_POLICIES`.
    """

    param_dtype: DType = "float32"
    compute_dtype: DType = "float32"
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto"
    scan_layers: bool = True
    remat: Literal["none", "full", "dots", "context", "offload"] = "none"
