"""The simplest rule: documents that are too short or too long."""

import dataclasses

from kanana_jax.data.records import Record


@dataclasses.dataclass(frozen=True)
class LengthConfig:
    """Bounds in characters; 0 is no bound."""

    min_characters: int = 0
    max_characters: int = 0

    def __post_init__(self):
        if self.max_characters and self.max_characters < self.min_characters:
            raise ValueError("max_characters is below min_characters")


def length(record: Record, config: LengthConfig) -> str | None:
    """`too_short`, `too_long`, or None."""
    characters = len(record["text"])
    if characters < config.min_characters:
        return "too_short"
    if config.max_characters and characters > config.max_characters:
        return "too_long"
    return None
