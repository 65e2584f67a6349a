"""The decoder as Flax NNX modules: Llama 3's (arXiv:2407.21783, §3.2) with the variations of `Architecture`.

Letters: `B` batch, `T` sequence, `D` model, `F` MLP, `H` query heads, `K` KV heads, `h` head dim,
`V` vocabulary, `L` layers, `S` slots of the KV cache. Parameters of the `L` blocks are stacked on a
leading axis, so that the same arrays run scanned or unrolled. The model returns hidden states, not
logits: `losses/cross_entropy.py` never holds `[B, T, V]`; `unembed` is for the few rows that sampling needs.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from kanana_jax.models.architecture import Architecture, LayerKind, Runtime
from kanana_jax.models.attention import attend
from kanana_jax.models.axes import Axes, shape, structure
from kanana_jax.models.cache import KVCache, LayerCache
from kanana_jax.models.dropout import Dropout
from kanana_jax.models.layers import run_layers
from kanana_jax.models.linear import Adapters, look_up, project
from kanana_jax.models.rope import apply_rope, rope_tables
from kanana_jax.parallel.sharding import constrain

Params = dict[str, Any]
# What a layer shows of itself while it runs: `input`, `output` `[B, T, D]`; `attention_norm` and `mlp_norm`, what goes
# into attention and MLP; `heads` `[B, T, H, h]`, what goes into `o`; `gate`, `up`, `hidden` `[B, T, F]`, the last what
# goes into `down`.
Taps = dict[str, jax.Array]
Observe = Callable[[Taps], Any]


class _Context(NamedTuple):
    """Values that all layers of one forward pass share.

    Attributes:
      rope: sine and cosine of the kinds of layers that rotate.
      tokens: with a cache, int32 `[B]`: number of tokens (not padding) already in it.
    """

    positions: jax.Array
    rope: Mapping[LayerKind, tuple[jax.Array, jax.Array]]
    q_segments: jax.Array | None
    kv_segments: jax.Array | None
    q_offset: jax.Array | int
    tokens: jax.Array | None
    causal: bool
    implementation: str
    dropout: Dropout | None = None


def _normal(rngs: nnx.Rngs, axes: Axes, a: Architecture, r: Runtime) -> nnx.Param:
    value = a.init_std * jax.random.normal(rngs.params(), shape(a, axes), jnp.float32)
    return nnx.Param(value.astype(r.param_dtype), axes=axes)


def _zeros(axes: Axes, a: Architecture, r: Runtime) -> nnx.Param:
    return nnx.Param(jnp.zeros(shape(a, axes), r.param_dtype), axes=axes)


class RMSNorm(nnx.Module):
    """x / rms(x) · gain over the axes of the gain, in float32 (arXiv:1910.07467, eq. 4)."""

    def __init__(self, a: Architecture, r: Runtime, axes: Axes = ("norm",)):
        first = 0.0 if a.norm_unit_offset else 1.0
        self.scale = nnx.Param(jnp.full(shape(a, axes), first, r.param_dtype), axes=axes)
        self.eps, self.offset, self.over = a.norm_eps, 1.0 - first, tuple(range(-len(axes), 0))

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        x = x_BTD.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=self.over, keepdims=True) + self.eps)
        return (x * (self.offset + self.scale[...].astype(jnp.float32))).astype(x_BTD.dtype)


class Attention(nnx.Module):
    """Grouped-query self-attention (arXiv:2305.13245)."""

    def __init__(self, a: Architecture, r: Runtime, rngs: nnx.Rngs):
        self.q = _normal(rngs, ("embed", "heads", "head_dim"), a, r)
        self.k = _normal(rngs, ("embed", "kv_heads", "head_dim"), a, r)
        self.v = _normal(rngs, ("embed", "kv_heads", "head_dim"), a, r)
        self.o = _normal(rngs, ("heads", "head_dim", "embed"), a, r)
        if a.attention_bias != "none":
            self.q_bias = _zeros(("heads", "head_vector"), a, r)
            self.k_bias = _zeros(("kv_heads", "head_vector"), a, r)
            self.v_bias = _zeros(("kv_heads", "head_vector"), a, r)
        if a.attention_bias == "qkvo":
            self.o_bias = _zeros(("embed",), a, r)
        if a.qk_norm == "head":
            self.q_norm, self.k_norm = RMSNorm(a, r, ("head_vector",)), RMSNorm(a, r, ("head_vector",))
        elif a.qk_norm == "width":
            self.q_norm = RMSNorm(a, r, ("heads", "head_vector"))
            self.k_norm = RMSNorm(a, r, ("kv_heads", "head_vector"))
        self.a = a

    def __call__(self, x_BTD, context: _Context, cache, *, kind: LayerKind, adapters: Adapters, taps: Taps):
        a = self.a
        q_BTHh = project(x_BTD, self.q[...], adapter=adapters.get("q"))
        k_BTKh = project(x_BTD, self.k[...], adapter=adapters.get("k"))
        v_BTKh = project(x_BTD, self.v[...], adapter=adapters.get("v"))
        if a.attention_bias != "none":
            q_BTHh, k_BTKh, v_BTKh = (
                q_BTHh + self.q_bias[...], k_BTKh + self.k_bias[...], v_BTKh + self.v_bias[...]
            )  # fmt: skip
        if a.qk_norm != "none":
            q_BTHh, k_BTKh = self.q_norm(q_BTHh), self.k_norm(k_BTKh)
        if kind.rope:
            q_BTHh, k_BTKh = (apply_rope(x, *context.rope[kind]) for x in (q_BTHh, k_BTKh))
        seen = None
        if cache is not None:
            cache, k_BTKh, v_BTKh, seen = cache.extended(kind, context, k_BTKh, v_BTKh)
        q_BTHh = constrain(q_BTHh, "batch", "sequence", "heads", None)
        k_BTKh = constrain(k_BTKh, "batch", "kv_sequence", "kv_heads", None)
        v_BTKh = constrain(v_BTKh, "batch", "kv_sequence", "kv_heads", None)
        out_BTHh = attend(
            q_BTHh,
            k_BTKh,
            v_BTKh,
            q_segments=context.q_segments,
            kv_segments=context.kv_segments,
            q_offset=context.q_offset,
            causal=context.causal,
            implementation=context.implementation,
            scale=a.attention_scale,
            window=kind.window,
            soft_cap=a.attention_softcap,
            seen=seen,
        )
        taps["heads"] = out_BTHh
        out_BTD = project(out_BTHh, self.o[...], inputs=2, adapter=adapters.get("o"))
        return out_BTD + self.o_bias[...] if a.attention_bias == "qkvo" else out_BTD, cache


ACTIVATIONS = {"silu": nnx.silu, "gelu_tanh": functools.partial(nnx.gelu, approximate=True)}


class MLP(nnx.Module):
    """A gated MLP: down(act(gate(x)) · up(x)) (arXiv:2002.05202, eq. 6)."""

    def __init__(self, a: Architecture, r: Runtime, rngs: nnx.Rngs):
        self.gate = _normal(rngs, ("embed", "mlp"), a, r)
        self.up = _normal(rngs, ("embed", "mlp"), a, r)
        self.down = _normal(rngs, ("mlp", "embed"), a, r)
        if a.mlp_bias:
            self.gate_bias, self.up_bias = _zeros(("mlp",), a, r), _zeros(("mlp",), a, r)
            self.down_bias = _zeros(("embed",), a, r)
        self.a = a

    def __call__(self, x_BTD: jax.Array, adapters: Adapters, taps: Taps) -> jax.Array:
        gate_BTF = project(x_BTD, self.gate[...], adapter=adapters.get("gate"))
        up_BTF = project(x_BTD, self.up[...], adapter=adapters.get("up"))
        if self.a.mlp_bias:
            gate_BTF, up_BTF = gate_BTF + self.gate_bias[...], up_BTF + self.up_bias[...]
        hidden_BTF = constrain(ACTIVATIONS[self.a.activation](gate_BTF) * up_BTF, "batch", "sequence", "mlp")
        taps |= {"gate": gate_BTF, "up": up_BTF, "hidden": hidden_BTF}
        out_BTD = project(hidden_BTF, self.down[...], adapter=adapters.get("down"))
        return out_BTD + self.down_bias[...] if self.a.mlp_bias else out_BTD


class Block(nnx.Module):
    """Attention and MLP, each added to the residual stream, with norms before them, after them, or both."""

    def __init__(self, a: Architecture, r: Runtime, rngs: nnx.Rngs):
        self.before, self.behind = a.norm_placement != "post", a.norm_placement != "pre"
        if self.before:
            self.attention_norm = RMSNorm(a, r)
        self.attention = Attention(a, r, rngs)
        if self.behind:
            self.attention_post_norm = RMSNorm(a, r)
        if self.before:
            self.mlp_norm = RMSNorm(a, r)
        self.mlp = MLP(a, r, rngs)
        if self.behind:
            self.mlp_post_norm = RMSNorm(a, r)
        self.multiplier = a.residual_multiplier

    def __call__(
        self, x_BTD, context: _Context, cache, *, kind: LayerKind, adapters: Adapters, taps: Taps, index: Any = 0
    ):
        def dropped(update_BTD: jax.Array, part: int) -> jax.Array:
            return update_BTD if context.dropout is None else context.dropout.of(2 * index + part, update_BTD)

        input_BTD = x_BTD
        normed_BTD = self.attention_norm(x_BTD) if self.before else x_BTD
        update_BTD, cache = self.attention(
            normed_BTD, context, cache, kind=kind, adapters=adapters.get("attention", {}), taps=taps
        )
        update_BTD = self.attention_post_norm(update_BTD) if self.behind else update_BTD
        x_BTD = constrain(x_BTD + _times(dropped(update_BTD, 0), self.multiplier), "batch", "sequence", None)
        mlp_normed_BTD = self.mlp_norm(x_BTD) if self.before else x_BTD
        update_BTD = self.mlp(mlp_normed_BTD, adapters.get("mlp", {}), taps)
        update_BTD = self.mlp_post_norm(update_BTD) if self.behind else update_BTD
        x_BTD = constrain(x_BTD + _times(dropped(update_BTD, 1), self.multiplier), "batch", "sequence", None)
        taps |= {"input": input_BTD, "attention_norm": normed_BTD, "mlp_norm": mlp_normed_BTD, "output": x_BTD}
        return x_BTD, cache


def _times(x: jax.Array, factor: float) -> jax.Array:
    return x if factor == 1.0 else x * jnp.asarray(factor, x.dtype)


class Transformer(nnx.Module):
    """Embedding, `L` blocks, final norm; `unembed` gives logits for chosen rows."""

    def __init__(self, architecture: Architecture, runtime: Runtime, rngs: nnx.Rngs):
        a, r = architecture, runtime
        self.architecture, self.runtime = a, r
        self.embedding = _normal(rngs, ("vocab", "embed"), a, r)
        stack = nnx.vmap(lambda layer_rngs: Block(a, r, layer_rngs), in_axes=0, out_axes=0)
        self.blocks = stack(nnx.Rngs(params=jax.random.split(rngs.params(), a.num_layers)))
        self.final_norm = RMSNorm(a, r)
        if not a.tied_embeddings:
            self.unembedding = _normal(rngs, ("vocab", "embed"), a, r)

    def unembedding_matrix(self) -> jax.Array:
        """`[V, D]`: the embedding itself if they are tied."""
        return self.embedding[...] if self.architecture.tied_embeddings else self.unembedding[...]

    def block_weights(self, adapters: Adapters | None = None) -> Any:
        """All blocks' weights and adapters, stacked and cast: under FSDP a layer is gathered in the compute dtype."""
        weights = {"own": nnx.state(self.blocks), "adapters": (adapters or {}).get("blocks", {})}
        return jax.tree.map(lambda w: w.astype(self.runtime.compute_dtype), weights)

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Logits, float32 `[..., V]`, of hidden states `[..., D]`."""
        matrix = self.unembedding_matrix().astype(hidden.dtype)
        logits = jnp.einsum("...D,VD->...V", hidden, matrix, preferred_element_type=jnp.float32)
        cap = self.architecture.logits_softcap
        return cap * jnp.tanh(logits / cap) if cap else logits

    @overload
    def __call__(
        self, tokens_BT: jax.Array, *, positions: jax.Array | None = ..., segment_ids: jax.Array | None = ...,
        cache: None = None, causal: bool = ..., implementation: str = ...,
        observe: None = None, observe_layers: tuple[int, ...] | None = ..., adapters: Adapters | None = ...,
        dropout: Dropout | None = ...,
    ) -> jax.Array: ...  # fmt: skip

    @overload
    def __call__(
        self, tokens_BT: jax.Array, *, positions: jax.Array | None = ..., segment_ids: jax.Array | None = ...,
        cache: KVCache, causal: bool = ..., implementation: str = ...,
        observe: None = None, observe_layers: tuple[int, ...] | None = ..., weights: Any = ...,
    ) -> tuple[jax.Array, KVCache]: ...  # fmt: skip

    @overload
    def __call__(
        self, tokens_BT: jax.Array, *, positions: jax.Array | None = ..., segment_ids: jax.Array | None = ...,
        cache: None = None, causal: bool = ..., implementation: str = ...,
        observe: Observe, observe_layers: tuple[int, ...] | None = ..., adapters: Adapters | None = ...,
    ) -> tuple[jax.Array, Any]: ...  # fmt: skip

    def __call__(
        self,
        tokens_BT: jax.Array,
        *,
        positions: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        cache: KVCache | None = None,
        causal: bool = True,
        implementation: str = "xla",
        observe: Observe | None = None,
        observe_layers: tuple[int, ...] | None = None,
        weights: Any = None,
        adapters: Adapters | None = None,
        dropout: Dropout | None = None,
    ) -> jax.Array | tuple[jax.Array, Any]:
        """Hidden states after the final norm (times `logits_multiplier`), `[B, T, D]` in the compute dtype.

        Args:
          tokens_BT: int32 `[B, T]`.
          positions: int32 `[B, T]`, the RoPE position within the document; default 0 … T−1.
          segment_ids: int32 `[B, T]`; tokens see only their own segment. 0 marks padding.
          cache: with a cache the new keys and values are written to slots
            `[length, length + T)`, and `(hidden, new cache)` is returned. A row of it holds one text, and positions
            count its tokens.
          causal: False lets every token of a segment see all of it (embedding models); a window then reaches as far
            forwards as back. Not together with a cache.
          implementation: the resolved attention implementation (`attention.choose`).
          observe: reduces each layer's `Taps` to the observation to keep; `(hidden, observations)` is then returned,
            the latter stacked over layers. Not together with a cache.
          observe_layers: ascending; only their observations are kept. Default: those of all layers.
          weights: the blocks' weights, in the compute dtype and as `run_layers` takes them. Default: `block_weights()`.
          adapters: scaled low-rank adapters of the blocks' weights (`lora.py`).
          dropout: dropout on the blocks' outputs; None: none.

        Raises:
          ValueError: a cache without causal attention: its entries were computed without later tokens.
        """
        if cache is not None and not causal:
            raise ValueError("a KV cache needs causal attention: its tokens have not seen later ones")
        B, T = tokens_BT.shape
        offset = cache.length if cache is not None else 0
        if positions is None:
            positions = jnp.broadcast_to(offset + jnp.arange(T, dtype=jnp.int32), (B, T))
        rope = {kind: rope_tables(positions, self.architecture, kind) for kind in self.architecture.period if kind.rope}
        if cache is None:
            kv_segments, tokens = segment_ids, None
        else:
            segment_ids = jnp.ones((B, T), jnp.int32) if segment_ids is None else segment_ids
            tokens = (cache.segment_ids > 0).sum(axis=1)
            kv_segments = jax.lax.dynamic_update_slice(cache.segment_ids, segment_ids, (0, offset))
        context = _Context(positions, rope, segment_ids, kv_segments, offset, tokens, causal, implementation, dropout)
        x_BTD = self._embed(tokens_BT)
        graph = nnx.graphdef(self.blocks)
        weights = self.block_weights(adapters) if weights is None else weights

        def layer(place: int, kind: LayerKind, carry, weights_and_index):
            x_BTD, caches = carry
            layer_weights, index = weights_and_index
            layer_cache = None if caches is None else LayerCache(*caches[place], index // len(self.architecture.period))
            block = nnx.merge(graph, layer_weights["own"])
            taps: Taps = {}
            x_BTD, layer_cache = block(
                x_BTD, context, layer_cache, kind=kind, adapters=layer_weights["adapters"], taps=taps, index=index
            )
            if layer_cache is not None:
                caches = (*caches[:place], (layer_cache.k, layer_cache.v), *caches[place + 1 :])
            return (x_BTD, caches), None if observe is None else observe(taps)

        layers = [functools.partial(layer, place, kind) for place, kind in enumerate(self.architecture.period)]
        carry = (x_BTD, None if cache is None else tuple(zip(cache.k, cache.v)))
        chosen = None if observe is None else observe_layers
        (x_BTD, caches), seen = run_layers(layers, carry, weights, self.runtime, chosen)
        hidden_BTD = _times(self.final_norm(x_BTD), self.architecture.logits_multiplier)
        if observe is not None:
            return hidden_BTD, seen
        if cache is None or kv_segments is None:
            return hidden_BTD
        k, v = zip(*caches)
        return hidden_BTD, KVCache(k, v, kv_segments, cache.length + T)

    def _embed(self, tokens_BT: jax.Array) -> jax.Array:
        x_BTD = look_up(self.embedding[...], tokens_BT).astype(self.runtime.compute_dtype)
        x_BTD = _times(x_BTD, self.architecture.embedding_multiplier)
        # Via tokens sharded over data only: otherwise GSPMD would gather all states of all devices.
        x_BTD = constrain(x_BTD, "lookup_batch", "sequence", "embed")
        return constrain(x_BTD, "batch", "sequence", None)


def init_params(architecture: Architecture, runtime: Runtime, key: jax.Array) -> Params:
    """Newly initialised parameters: normal with `init_std` (Llama and Kanana: 0.02), gains 1, biases 0."""
    state = nnx.split(Transformer(architecture, runtime, nnx.Rngs(params=key)))[1]
    return nnx.to_pure_dict(state)


def abstract_params(architecture: Architecture, runtime: Runtime) -> Params:
    """Shapes and dtypes of `init_params`, without computing anything."""
    return jax.eval_shape(lambda: init_params(architecture, runtime, jax.random.key(0)))


def bind(architecture: Architecture, runtime: Runtime, params: Params) -> Transformer:
    """The module over given parameters; cheap, call it inside `jit`."""
    graph, _ = nnx.split(_abstract_module(architecture, runtime))
    return nnx.merge(graph, nnx.State(params))


def axes_by_path(architecture: Architecture) -> dict[tuple[str, ...], Axes]:
    """The names of each parameter's axes, by the keys leading to it."""
    return _axes_by_path(structure(architecture))


def logical_axes(architecture: Architecture) -> Params:
    """Like `axes_by_path`, as a tree like the parameters; `parallel.sharding.RULES` maps the names to the mesh."""
    return traverse_util.unflatten_dict(axes_by_path(architecture))


@functools.cache
def _axes_by_path(architecture: Architecture) -> dict[tuple[str, ...], Axes]:
    state = nnx.split(_abstract_module(architecture, Runtime()))[1]
    found = {}
    for path, param in nnx.to_flat_state(state):
        keys = tuple(str(key) for key in path)
        axes = tuple(param.get_metadata()["axes"])
        found[keys] = ("layers", *axes) if keys[0] == "blocks" else axes
    return found


def _abstract_module(architecture: Architecture, runtime: Runtime) -> Transformer:
    return nnx.eval_shape(lambda: Transformer(architecture, runtime, nnx.Rngs(params=0)))
