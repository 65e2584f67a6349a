"""The families of Hugging Face models that can be read and written; to add one, add a file and a line in `FAMILIES`."""

import functools
from typing import Any

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.interop.families import (
    exaone4,
    gemma2,
    gemma3,
    hyperclovax,
    kanana2,
    llama,
    mistral,
    olmo2,
    olmo3,
    own,
    qwen2,
    qwen3,
    smollm3,
)
from kanana_jax.interop.families.family import Family
from kanana_jax.interop.foreign import Fields, short
from kanana_jax.models.architecture import Architecture

# If several families compute the same function, a model is written as the first.
FAMILIES = (
    llama.FAMILY,
    mistral.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    smollm3.FAMILY,
    olmo2.FAMILY,
    olmo3.FAMILY,
    exaone4.FAMILY,
    gemma2.FAMILY,
    gemma3.TEXT,
    gemma3.FAMILY,
    hyperclovax.FAMILY,
    kanana2.FAMILY,
    kanana2.MELLUM,
    own.FAMILY,
)


@functools.cache
def family_of(a: Architecture) -> Family:
    """The first family whose class computes the architecture's function; our own (`own.py`) if there is no other."""
    return next(family for family in FAMILIES if not family.inner and not family.lacks(a))


def export_family(a: Architecture, name: str = "") -> Family:
    """The family to export a model as, for other tools: the named one, or the first that computes the same function.

    Args:
      name: `model_type` of the family; empty: any.

    Raises:
      ConfigError: no family has this name.
      UserError: the named class, or every class, lacks a part of the model.
    """
    public = {family.model_type: family for family in FAMILIES if not family.inner and family is not own.FAMILY}
    fitting = [key for key, family in public.items() if not family.lacks(a)]
    if name:
        if name not in public:
            raise ConfigError(f"there is no family {short(name)}; these can be written: {', '.join(public)}")
        lacking = public[name].lacks(a)
        if lacking:
            same = f"; classes that compute the same function: {', '.join(fitting)}" if fitting else ""
            raise UserError(f"{public[name].class_name} has no {' and no '.join(lacking)}{same}")
        return public[name]
    if not fitting:
        nearest = min(public.values(), key=lambda family: len(family.lacks(a)))
        raise UserError(
            f"no public class computes this model; the nearest, {nearest.class_name}, has no "
            f"{' and no '.join(nearest.lacks(a))}"
        )
    return public[fitting[0]]


def read(config: dict[str, Any], where: str) -> tuple[Family, Architecture]:
    """The family and the architecture that a `config.json` describes.

    Args:
      config: contents of the file.
      where: name of the file, for messages.

    Raises:
      UserError: the family is unknown, or it is a variant whose logits cannot be reproduced here.
    """
    kind, classes = config.get("model_type"), config.get("architectures")
    for family in FAMILIES:
        if kind == family.model_type:
            if classes and (not isinstance(classes, list) or family.class_name not in classes):
                raise UserError(
                    f"{where}: architectures {short(classes)} and model_type '{kind}' contradict: the former "
                    f"must hold {family.class_name}"
                )
            return family, family.from_config(_text_of(family, config, where), where)
    named = classes[0] if isinstance(classes, list) and classes else kind
    known = ", ".join(family.class_name for family in FAMILIES)
    raise UserError(
        f"{where}: architecture {named if isinstance(named, str) else short(named)} is not known; supported are {known}"
    )


def from_config(config: dict[str, Any], where: str) -> Architecture:
    """The architecture that a `config.json` describes; raises as `read` does."""
    return read(config, where)[1]


def _text_of(family: Family, config: dict[str, Any], where: str) -> dict[str, Any]:
    """The keys of the text model, including those for tying and quantisation, which are outside its table."""
    if not family.inner:
        return config
    whole = Fields(config, where)
    outer = {key: config[key] for key in ("tie_word_embeddings", "quantization_config") if key in config}
    return whole.table(family.inner) | outer
