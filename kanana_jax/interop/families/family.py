"""A family of Hugging Face models: the architectures that its class computes, its `config.json` and tensor names."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kanana_jax.interop.families import names, rope, shape
from kanana_jax.interop.families.names import Tensor
from kanana_jax.interop.foreign import Fields, short
from kanana_jax.models.architecture import Architecture, LayerKind, RopeScaling, pattern_of

Special = Mapping[str, int | list[int] | None]
# Marks a field that may have any value; `Family.check` refuses combinations that the class does not compute.
ANY: tuple[Any, ...] = ()
# Fields of which every class supports all values.
_COMMON = frozenset(
    ("vocab_size", "embed_dim", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "tied_embeddings",
     "max_seq_len", "rope_theta", "rope_scaling", "norm_eps", "init_std", "activation")
)  # fmt: skip


def _nothing(a: Architecture) -> str:
    del a
    return ""


@dataclasses.dataclass(frozen=True)
class Family:
    """A model class of Hugging Face and its checkpoint format.

    Attributes:
      model_type: value of this key in `config.json`.
      class_name: name of the class in `architectures`.
      norms: a map from our names of a block's norms to the family's.
      read: from `config.json` and the common fields, makes the family's other fields of `Architecture`; raises
        UserError for a model that cannot be reproduced.
      write: makes the family's keys of `config.json` other than the common ones.
      fields: the family's other fields of `Architecture`, each with the values that the class supports (`ANY`: all). A
        field that is neither common nor listed must have its default.
      check: for an architecture whose fields are all supported, describes what the class still cannot compute; empty
        if there is nothing.
      keys: keys that `read` understands, among those that are otherwise refused (`refusals.py`).
      defaults: values of keys that may be missing, if they differ from Llama's.
      whole_heads: whether the class requires the width to be a multiple of the number of heads.
      activation_key: key of the MLP's activation.
      public: whether `transformers` has the class, so that other tools can load a folder.
      inner: in a class with several models, the key that holds the text model's keys.
      aliases: (prefix on disk, prefix in the family's names) of tensor names.
      skipped: prefixes of the names of tensors that do not belong to the text model.
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
        """The parts of an architecture that the class does not support; empty: it computes the same function."""
        a = canonical(a)
        found = []
        for field in dataclasses.fields(Architecture):
            value, allowed = getattr(a, field.name), self.fields.get(field.name, (field.default,))
            if field.name not in _COMMON and allowed is not ANY and value not in allowed:
                found.append(f"{field.name} {short(value)}")
        if self.whole_heads and a.embed_dim % a.num_heads:
            found.append(f"embed_dim {a.embed_dim} that is not a multiple of num_heads {a.num_heads}")
        if not found and self.check(a):
            found.append(self.check(a))
        return found

    def outer_tensors(self, a: Architecture) -> list[Tensor]:
        """Embedding, final norm and (untied) output matrix."""
        return names.outer_tensors(a)

    def layer_tensors(self, a: Architecture, layer: int) -> list[Tensor]:
        """Tensors of one block."""
        return names.layer_tensors(a, layer, self.norms)

    def groups(self, a: Architecture) -> Iterator[list[Tensor]]:
        """Yields the outer tensors, then each layer's; streaming a checkpoint holds one group in memory at a time."""
        yield self.outer_tensors(a)
        for layer in range(a.num_layers):
            yield self.layer_tensors(a, layer)

    def name(self, tensor: Tensor) -> str:
        """This family's name for a tensor of any family."""
        return names.name(tensor.path, tensor.layer, self.norms)

    def from_config(self, config: dict[str, Any], where: str) -> Architecture:
        """The architecture that a `config.json` describes.

        Raises:
          UserError: it is a variant whose logits cannot be reproduced here.
        """
        fields = Fields(config, where, dict(self.defaults))
        return shape.read(fields, self.keys, self.activation_key, self.read)

    def to_config(self, a: Architecture, dtype: str, special: Special) -> dict[str, Any]:
        """Contents of `config.json`; `special` holds bos_token_id, eos_token_id and pad_token_id."""
        a = canonical(a)
        named = {"architectures": [self.class_name], "model_type": self.model_type}
        common, own = shape.write(a, dtype, self.activation_key), self.write(a)
        if "rope_parameters" not in own:
            common |= rope.to_config(a.rope_theta, a.rope_scaling)
        # Without this key, classes use a default padding token, which may be beyond this vocabulary.
        return {**named, **common, **own, "pad_token_id": None, **special}


def canonical(a: Architecture) -> Architecture:
    """An equivalent architecture in the form that reading a `config.json` gives, so that two can be compared."""

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
