"""One layer after another: scanned or unrolled, and what of them is kept for the backward pass."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.models.architecture import Runtime
from kanana_jax.models.attention import CONTEXT

# (carry, (the layer's weights, its index)) → (carry, what is seen of the layer)
Layer = Callable[[Any, Any], tuple[Any, Any]]


def run_layers(layer: Layer, carry: Any, weights: Any, runtime: Runtime, chosen: tuple[int, ...] | None = None):
    """The carry after the last layer, and what was seen, stacked.

    Args:
      layer: the function of one.
      carry: goes into the first.
      weights: of all layers, stacked on the first axis.
      runtime: scan and rematerialisation.
      chosen: ascending; what the others show is dropped. Default: nothing is.
    """
    layer = rematerialised(layer, runtime.remat)
    num_layers = jax.tree.leaves(weights)[0].shape[0]
    if runtime.scan_layers:
        inputs = (weights, jnp.arange(num_layers))
        return jax.lax.scan(layer, carry, inputs) if chosen is None else _scan_some(layer, carry, inputs, chosen)
    each = []
    for i in range(num_layers):
        carry, seen = layer(carry, (jax.tree.map(lambda w, i=i: w[i], weights), i))
        if chosen is None or i in chosen:
            each.append(seen)
    return carry, jax.tree.map(lambda *x: jnp.stack(x), *each)


def _scan_some(layer: Layer, carry: Any, inputs: Any, chosen: tuple[int, ...]):
    """As `jax.lax.scan`, but only the chosen layers' outputs are kept: the others' go to a slot that is dropped."""
    slots = np.full(len(inputs[1]), len(chosen))
    slots[list(chosen)] = np.arange(len(chosen))
    shapes = jax.eval_shape(lambda c, x: layer(c, jax.tree.map(lambda leaf: leaf[0], x))[1], carry, inputs)
    kept = jax.tree.map(lambda s: jnp.zeros((len(chosen) + 1, *s.shape), s.dtype), shapes)

    def body(state, inputs_and_slot):
        carry, seen = layer(state[0], inputs_and_slot[0])
        put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=inputs_and_slot[1], axis=0)
        return (carry, jax.tree.map(put, state[1], seen)), None

    (carry, kept), _ = jax.lax.scan(body, (carry, kept), (inputs, jnp.asarray(slots)))
    return carry, jax.tree.map(lambda x: x[:-1], kept)


REMAT_POLICIES = {
    "full": "keep each layer's input only",
    "dots": "keep the matrix products, recompute the cheap rest",
    "context": "keep each layer's input, the attention's output and its log-sum-exp",
    "offload": "as 'context', kept in host memory",
}


def rematerialised(layer: Layer, policy: str) -> Layer:
    """`layer` under a named rematerialisation policy (`REMAT_POLICIES`, or 'none')."""
    if policy == "none":
        return layer
    policies = jax.checkpoint_policies
    chosen = {
        "full": policies.nothing_saveable,
        "dots": policies.dots_with_no_batch_dims_saveable,
        "context": policies.save_only_these_names(CONTEXT),
        "offload": policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[CONTEXT],
            offload_src="device",
            offload_dst="pinned_host",
        ),
    }[policy]
    return jax.checkpoint(layer, policy=chosen, prevent_cse=False)
