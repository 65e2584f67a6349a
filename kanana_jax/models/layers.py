"""One layer after another: scanned or unrolled, with a policy for the backward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kanana_jax.models.architecture import Runtime
from kanana_jax.models.attention import CONTEXT

# (carry, (the layer's weights, its index)) → (carry, the layer's observation)
Layer = Callable[[Any, Any], tuple[Any, Any]]


def run_layers(
    layers: Sequence[Layer], carry: Any, weights: Any, runtime: Runtime, chosen: tuple[int, ...] | None = None
):
    """The carry after the last layer, and the stacked observations.

    Args:
      layers: the functions of one period; layer `i` is run by number `i mod p`. A scan's body is one period, and
        an incomplete last one follows it.
      carry: the input of the first.
      weights: of all layers, stacked on the first axis; or a tuple, each layer's own (`apart`), which are not scanned.
      runtime: scan and rematerialisation.
      chosen: ascending layers whose observations are kept. Default: all.
    """
    own = weights if isinstance(weights, tuple) else None
    num_layers, p = jax.tree.leaves(weights)[0].shape[0] if own is None else len(own), len(layers)
    scanned = num_layers - num_layers % p if runtime.scan_layers and own is None else 0
    each = []
    if scanned:
        if scanned == num_layers:
            return _scan(layers, carry, weights, scanned, runtime.remat, chosen)
        carry, seen = _scan(layers, carry, jax.tree.map(lambda w: w[:scanned], weights), scanned, runtime.remat, chosen)
        each.append(seen)
    layers = [rematerialised(layer, runtime.remat) for layer in layers]
    for i in range(scanned, num_layers):
        of_layer = jax.tree.map(lambda w, i=i: w[i], weights) if own is None else own[i]
        carry, seen = layers[i % p](carry, (of_layer, i))
        if chosen is None or i in chosen:
            each.append(jax.tree.map(lambda x: x[None], seen))
    return carry, jax.tree.map(lambda *x: jnp.concatenate(x), *each)


def apart(weights: Any) -> tuple[Any, ...]:
    """Stacked weights as each layer's own arrays."""
    return tuple(jax.tree.map(lambda w, i=i: w[i], weights) for i in range(jax.tree.leaves(weights)[0].shape[0]))


def _scan(layers: Sequence[Layer], carry, weights, num_layers: int, remat: str, chosen: tuple[int, ...] | None):
    """Whole periods in a loop. Of the chosen layers alone what is seen is kept: the others' goes to a slot that is
    dropped."""
    p = len(layers)
    inputs = (weights, jnp.arange(num_layers))
    if p > 1:
        inputs = jax.tree.map(lambda x: x.reshape(num_layers // p, p, *x.shape[1:]), inputs)

    def at(place: int) -> Layer:
        # Taken out of the period within what is recomputed: else a copy of the weights is kept for the backward pass.
        # A period of one layer is that layer, so that without rematerialisation none is kept either.
        def layer(carry, inputs):
            own = inputs if p == 1 else jax.tree.map(lambda x: x[place], inputs)
            return layers[place](carry, own)

        return rematerialised(layer, remat)

    each_place = [at(place) for place in range(p)]

    def period(carry, inputs):
        each = []
        for layer in each_place:
            carry, seen = layer(carry, inputs)
            each.append(seen)
        return carry, jax.tree.map(lambda *x: jnp.stack(x), *each)

    if chosen is None:
        carry, seen = jax.lax.scan(period, carry, inputs)
        return carry, jax.tree.map(lambda x: x.reshape(num_layers, *x.shape[2:]), seen)
    chosen = tuple(i for i in chosen if i < num_layers)
    slots = np.full(num_layers, len(chosen))
    slots[list(chosen)] = np.arange(len(chosen))
    shapes = jax.eval_shape(lambda c, x: period(c, jax.tree.map(lambda leaf: leaf[0], x))[1], carry, inputs)
    kept = jax.tree.map(lambda s: jnp.zeros((len(chosen) + 1, *s.shape[1:]), s.dtype), shapes)

    def body(state, inputs_and_slots):
        inputs, slots = inputs_and_slots
        carry, seen = period(state[0], inputs)
        return (carry, jax.tree.map(lambda kept, new: kept.at[slots].set(new), state[1], seen)), None

    (carry, kept), _ = jax.lax.scan(body, (carry, kept), (inputs, jnp.asarray(slots.reshape(-1, p))))
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
