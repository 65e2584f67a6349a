"""One family of Hugging Face models: its names for our parameters, and its `config.json`."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from kanana_jax.models.architecture import Architecture

Special = Mapping[str, int | list[int] | None]


def _same(x: np.ndarray) -> np.ndarray:
    return x


class Tensor(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
      name: Hugging Face's name.
      path: keys of ours.
      layer: index on the stacked axis, or None.
      shape: Hugging Face's shape.
      to_ours, to_theirs: change of layout of a NumPy array; both are views or exact permutations. Default: none.
    """

    name: str
    path: tuple[str, ...]
    layer: int | None
    shape: tuple[int, ...]
    to_ours: Callable[[np.ndarray], np.ndarray] = _same
    to_theirs: Callable[[np.ndarray], np.ndarray] = _same


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of checkpoint.

    Attributes:
      model_type: of `config.json`.
      class_name: that in `architectures`.
      outer_tensors: embedding, final norm and (untied) output matrix.
      layer_tensors: those of one block.
      to_config: `config.json` of an architecture in a dtype; the special tokens' ids are added.
      from_config: the architecture of a `config.json` (and where that lies); refuses, as UserError, what could not be
        reproduced.
    """

    model_type: str
    class_name: str
    outer_tensors: Callable[[Architecture], list[Tensor]]
    layer_tensors: Callable[[Architecture, int], list[Tensor]]
    to_config: Callable[[Architecture, str, Special], dict[str, Any]]
    from_config: Callable[[dict[str, Any], str], Architecture]

    def groups(self, a: Architecture) -> Iterator[list[Tensor]]:
        """All tensors, a layer at a time: what is in memory at once when a checkpoint is streamed."""
        yield self.outer_tensors(a)
        for layer in range(a.num_layers):
            yield self.layer_tensors(a, layer)
