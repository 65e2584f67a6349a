"""The families of Hugging Face models that can be read and written; a new one is a file and a line of `FAMILIES`."""

import functools
from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import llama, qwen3
from kanana_jax.interop.families.family import Family
from kanana_jax.interop.foreign import short
from kanana_jax.models.architecture import Architecture
from kanana_jax.models.transformer import axes_by_path

FAMILIES = (
    llama.FAMILY,
    qwen3.FAMILY,
)  # fmt: skip


@functools.cache
def family_of(a: Architecture) -> Family:
    """The first family that has a name for each parameter of the model, and for nothing else.

    Raises:
      UserError: there is none.
    """
    wanted = axes_by_path(a).keys()
    for family in FAMILIES:
        if wanted == {tensor.path for tensor in (*family.outer_tensors(a), *family.layer_tensors(a, 0))}:
            return family
    raise UserError(f"no family of Hugging Face models has names for just the parameters of {a}")


def from_config(config: dict[str, Any], where: str) -> Architecture:
    """The architecture of a `config.json`, read by the family of its `model_type`.

    Raises:
      UserError: an unknown family, or a variant whose logits we could not reproduce.
    """
    kind, classes = config.get("model_type"), config.get("architectures")
    for family in FAMILIES:
        if kind == family.model_type:
            if classes and (not isinstance(classes, list) or family.class_name not in classes):
                raise UserError(
                    f"{where}: architectures {short(classes)} and model_type '{kind}' contradict: the former "
                    f"must hold {family.class_name}"
                )
            return family.from_config(config, where)
    named = classes[0] if isinstance(classes, list) and classes else kind
    known = ", ".join(family.class_name for family in FAMILIES)
    raise UserError(
        f"{where}: architecture {named if isinstance(named, str) else short(named)} is not known; supported are {known}"
    )
