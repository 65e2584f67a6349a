"""The meaning of the names of parameters' axes.

A parameter names its axes where it is made: `axes=("embed", "heads", "head_dim")`. Everything else that must be known
about it follows from the names: its shape, what a mesh must divide, whether it decays, parameter counts and FLOPs, and
what surgery cuts. The place of an axis on the mesh is in `parallel.sharding.RULES`.
"""

import dataclasses

from kanana_jax.models.architecture import Architecture

Axes = tuple[str, ...]

# axis → the field of `Architecture` that is its size; where a mesh fails to divide several, the error names the first.
SIZES = {
    "heads": "num_heads",
    "kv_heads": "num_kv_heads",
    "mlp": "mlp_dim",
    "vocab": "vocab_size",
    "embed": "embed_dim",
    "head_dim": "head_dim",
    "layers": "num_layers",
    "norm": "embed_dim",
    "head_vector": "head_dim",
}
# Vectors over the channels of a head (gains, biases) have their own axis, and so do gains over the residual stream.
VECTORS = frozenset({"norm", "head_vector"})


def size(a: Architecture, axis: str) -> int:
    return getattr(a, SIZES[axis])


def shape(a: Architecture, axes: Axes) -> tuple[int, ...]:
    return tuple(size(a, axis) for axis in axes)


def is_matrix(axes: Axes) -> bool:
    """Returns whether it is a factor of a matrix product (or is looked up): these decay, gains and biases do not."""
    return len([axis for axis in axes if axis != "layers"]) > 1 and not VECTORS.intersection(axes)


def structure(a: Architecture) -> Architecture:
    """`a` with every size minimal, which suffices for the tree of axis names."""
    return dataclasses.replace(a, **dict.fromkeys(SIZES.values(), 2), layer_pattern=(), partial_rotary_factor=1.0)
