"""The families of Hugging Face models that can be read and written; a new one is a file and a line of `FAMILIES`."""

import functools
from typing import Any

from kanana_jax.errors import UserError
from kanana_jax.interop.families import llama, qwen3
from kanana_jax.interop.families.family import Family
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
    for family in FAMILIES:
        if config.get("model_type") == family.model_type:
            return family.from_config(config, where)
    kind = (config.get("architectures") or [config.get("model_type")])[0]
    known = ", ".join(family.class_name for family in FAMILIES)
    raise UserError(f"{where}: architecture {kind} is not known; supported are {known}")
