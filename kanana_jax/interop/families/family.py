"""One family of Hugging Face models: which architectures its class computes, its `config.json`, its tensors' names."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kanana_jax.interop.families import names, rope, shape
from kanana_jax.interop.families.names import Tensor
from kanana_jax.interop.foreign import Fields, short
from kanana_jax.models.architecture import Architecture, LayerKind, RopeScaling, pattern_of

Special = Mapping[str, int | list[int] | None]
# Of a field of which a class has every value; what of it does not go together, `Family.check` says.
ANY: tuple[Any, ...] = ()
# Fields that every class has.
_COMMON = frozenset(
    ("vocab_size", "embed_dim", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "tied_embeddings",
     "max_seq_len", "rope_theta", "rope_scaling", "norm_eps", "init_std", "activation")
)  # fmt: skip


def _nothing(a: Architecture) -> str:
    del a
    return ""


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of checkpoint.

    Attributes:
      model_type: of `config.json`.
      class_name: that in `architectures`.
      norms: our names of a block's norms → its own.
      read: fields of the architecture beyond the common ones, from `config.json` and the common ones that were read;
        refuses, as UserError, what could not be reproduced.
      write: keys of `config.json` beyond the common ones.
      fields: fields of `Architecture` beyond the common ones, each with the values that the class has (`ANY`: all). A
        field that is not among them must have its default.
      check: of an architecture whose fields the class has: what of them it cannot compute, or nothing.
      keys: that `read` understands, of those that would be refused elsewhere (`refusals.py`).
      defaults: of keys that may be missing, where they are not Llama's.
      whole_heads: whether the class asks for a width that is a multiple of its heads.
      activation_key: of the MLP's activation.
      public: whether `transformers` has the class, so that a folder of it can be handed on.
      inner: the key under which the text model's keys lie, in a class of several models.
      aliases: beginnings of names on disk → of ours.
      skipped: beginnings of names of tensors that are not the text model's.
    """

    model_type: str
    class_name: str
    norms: Mapping[str, str]
    read: Callable[[Fields, dict[str, Any]], dict[str, Any]]
    write: Callable[[Architecture], dict[str, Any]]
    fields: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    check: Callable[[Architecture], str] = _nothing
    keys: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    whole_heads: bool = False
    activation_key: str = "hidden_act"
    public: bool = True
    inner: str = ""
    aliases: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()

    def lacks(self, a: Architecture) -> list[str]:
        """Fields of an architecture that the class has not, with their values; empty: it computes the same function."""
        a = canonical(a)
        found = []
        for field in dataclasses.fields(Architecture):
            value, allowed = getattr(a, field.name), self.fields.get(field.name, (field.default,))
            if field.name not in _COMMON and allowed is not ANY and value not in allowed:
                found.append(f"{field.name} {short(value)}")
        if self.whole_heads and a.embed_dim % a.num_heads:
            found.append(f"embed_dim {a.embed_dim} that is no multiple of num_heads {a.num_heads}")
        if not found and self.check(a):
            found.append(self.check(a))
        return found

    def outer_tensors(self, a: Architecture) -> list[Tensor]:
        """Embedding, final norm and (untied) output matrix."""
        return names.outer_tensors(a)

    def layer_tensors(self, a: Architecture, layer: int) -> list[Tensor]:
        """Those of one block."""
        return names.layer_tensors(a, layer, self.norms)

    def groups(self, a: Architecture) -> Iterator[list[Tensor]]:
        """All tensors, a layer at a time: what is in memory at once when a checkpoint is streamed."""
        yield self.outer_tensors(a)
        for layer in range(a.num_layers):
            yield self.layer_tensors(a, layer)

    def name(self, tensor: Tensor) -> str:
        """This family's name for a tensor of any family."""
        return names.name(tensor.path, tensor.layer, self.norms)

    def from_config(self, config: dict[str, Any], where: str) -> Architecture:
        """The architecture of a `config.json`.

        Raises:
          UserError: a variant whose logits we could not reproduce.
        """
        fields = Fields(config, where, dict(self.defaults))
        return shape.read(fields, self.keys, self.activation_key, self.read)

    def to_config(self, a: Architecture, dtype: str, special: Special) -> dict[str, Any]:
        """`config.json`; `special` holds bos_token_id, eos_token_id and pad_token_id."""
        a = canonical(a)
        named = {"architectures": [self.class_name], "model_type": self.model_type}
        common, own = shape.write(a, dtype, self.activation_key), self.write(a)
        if "rope_parameters" not in own:
            common |= rope.to_config(a.rope_theta, a.rope_scaling)
        # Classes have a padding token of their own, which may lie beyond this vocabulary.
        return {**named, **common, **own, "pad_token_id": None, **special}


def canonical(a: Architecture) -> Architecture:
    """The same function in the form in which a `config.json` is read."""

    def plain(kind: LayerKind) -> LayerKind:
        if not kind.rope:
            return LayerKind(kind.window, rope=False)
        theta = 0.0 if kind.rope_theta == a.rope_theta else kind.rope_theta
        return LayerKind(kind.window, True, theta, kind.rope_scaled or a.rope_scaling is None)

    own, scaling = a.attention_multiplier == a.head_dim**-0.5, a.rope_scaling
    if scaling is not None and scaling.type == "linear":
        scaling = RopeScaling("linear", scaling.factor, a.max_seq_len)
    return dataclasses.replace(
        a,
        layer_pattern=pattern_of([plain(kind) for kind in a.kinds]) if a.layer_pattern else (),
        rope_scaling=scaling,
        attention_multiplier=0.0 if own else a.attention_multiplier,
    )
