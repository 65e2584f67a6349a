"""A model as it runs: its architecture, its runtime, and the attention kernel chosen for them."""

import dataclasses
from typing import Any, Protocol

import jax

from kanana_jax.models import attention, transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.linear import ADAPTERS
from kanana_jax.models.transformer import Params, Transformer


class Packed(Protocol):
    """Rows of packed sequences, int32 `[B, T]` each; segment 0 is padding."""

    @property
    def inputs(self) -> jax.Array: ...

    @property
    def positions(self) -> jax.Array: ...

    @property
    def segment_ids(self) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class Model:
    """A model without its parameters; hashable, so that programs can be compiled for it.

    Attributes:
      implementation: the resolved attention kernel (`attention.choose`).
      causal: whether a token sees only earlier ones; False: its whole segment (embedding models).
    """

    architecture: Architecture
    runtime: Runtime = Runtime()
    implementation: str = "xla"
    causal: bool = True

    @staticmethod
    def on(platform: str, architecture: Architecture, runtime: Runtime, seq_len: int) -> "Model":
        """A model with the attention kernel chosen for rows of `seq_len` tokens on a platform.

        Raises:
          ConfigError: a named attention that cannot run there.
        """
        return Model(architecture, runtime, attention.implementation(runtime, architecture, seq_len, platform))

    def bind(self, params: Params) -> Transformer:
        """The module over given parameters; cheap, call it inside `jit`."""
        return transformer.bind(self.architecture, self.runtime, params)

    def abstract_params(self) -> Params:
        return transformer.abstract_params(self.architecture, self.runtime)

    def logical_axes(self) -> Params:
        return transformer.logical_axes(self.architecture)

    def __call__(self, params: Params, rows: Packed, **options: Any) -> tuple[Any, jax.Array]:
        """The final states of packed rows, and the output matrix.

        Args:
          params: the model's, with or without adapters (`lora.adapted`).
          options: options of `Transformer.__call__`: `observe`, `observe_layers`, `dropout`.

        Returns:
          `[B, T, D]` (with `observe`: that and the observations), and `[V, D]`.
        """
        module = self.bind({key: value for key, value in params.items() if key != ADAPTERS})
        states = module(
            rows.inputs,
            positions=rows.positions,
            segment_ids=rows.segment_ids,
            causal=self.causal,
            implementation=self.implementation,
            adapters=params.get(ADAPTERS),
            **options,
        )
        return states, module.unembedding_matrix()
