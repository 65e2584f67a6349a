"""Depth up-scaling: more layers from the existing ones."""

import dataclasses
from typing import Literal

from kanana_jax.errors import ConfigError
from kanana_jax.models.architecture import Architecture
from kanana_jax.surgery.cuts import CutList

Method = Literal["overlap", "identity", "neighbour", "stack"]


@dataclasses.dataclass(frozen=True)
class UpscaleConfig:
    """Depth up-scaling options.

    Attributes:
      num_layers: number of layers of the result.
      method: `overlap`: SOLAR's (arXiv:2312.15166, §2): the lower and the upper part, with the middle layers twice;
        so Kanana's 32 → 40 keeps layers 0–19 and 12–31 (the report does not say which). `identity`: copies that add
        nothing at first, spread evenly (LLaMA-Pro, arXiv:2401.02415, §3.2): the same logits. `neighbour`: copies beside
        their originals, spread evenly. `stack`: the whole stack again from the bottom (G_stack, arXiv:2405.15319).
    """

    num_layers: int
    method: Method = "overlap"


def cut_list(before: Architecture, config: UpscaleConfig, key: str = "upscale") -> CutList:
    """The cut list of an up-scaling.

    Args:
      key: key of the config's section, for messages.

    Raises:
      ConfigError: the result would not be deeper, or would be more than twice as deep (overlap, identity, neighbour),
        or its layers would not follow the model's pattern.
    """
    old, new = before.num_layers, config.num_layers
    if new <= old:
        raise ConfigError(f"config '{key}.num_layers' is {new}, but the model already has {old}: set a larger number")
    if config.method != "stack" and new > 2 * old:
        raise ConfigError(
            f"config '{key}.num_layers' is {new}: '{config.method}' reaches {2 * old} at most; do it in two steps"
        )
    whole = len(before.period)
    broken = (new - old if config.method == "overlap" else old) % whole
    if whole > 1 and (broken or config.method in ("identity", "neighbour")):
        raise ConfigError(
            f"config '{key}': layers of this model differ in their attention and repeat every {whole}: use method "
            f"'overlap' and add a multiple of {whole} layers"
        )
    identity = [False] * new
    if config.method == "overlap":
        upper = new // 2
        layers = [*range(new - upper), *range(old - upper, old)]
    elif config.method == "stack":
        layers = [i % old for i in range(new)]
    else:
        layers, identity = [], []
        copies, added = new - old, 0
        for layer in range(old):
            layers.append(layer)
            identity.append(False)
            # The k-th of n copies comes after layer ⌈k · old / n⌉ − 1: after every (old / n)-th, the last at the top.
            if (layer + 1) * copies // old > added:
                added += 1
                layers.append(layer)
                identity.append(config.method == "identity")
    after = dataclasses.replace(before, num_layers=new)
    return CutList(before, after, tuple(layers), tuple(identity))
