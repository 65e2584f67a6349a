"""Training time and price of a number of tokens, from the output of `kanana plan --json`."""

import dataclasses
import math
import pathlib

from kanana_jax.errors import ConfigError
from kanana_jax.files import load_json


@dataclasses.dataclass(frozen=True)
class Rate:
    """The cost of training, from the plan of a stage.

    Attributes:
      source: the plan's file.
      parameters: of the planned model; the cost of other sizes is proportional, as in 6·N·D.
      tokens_per_day: of all chips together, (with perfect overlap of communication, with none).
      price: per chip-hour; None if unknown.
    """

    source: str
    topology: str
    chips: int
    parameters: float
    tokens_per_day: tuple[float, float]
    price: float | None

    def days(self, tokens: float, params: float) -> list[float]:
        """Days to train a model of `params` parameters on `tokens` tokens, [fewest, most]."""
        return [tokens * params / self.parameters / per_day for per_day in self.tokens_per_day]

    def money(self, tokens: float, params: float) -> list[float] | None:
        """The price of that training, [least, most]; None if the price of a chip-hour is unknown."""
        if self.price is None:
            return None
        return [days * 24 * self.chips * self.price for days in self.days(tokens, params)]


def read(path: pathlib.Path) -> Rate:
    """Reads a file written by `kanana plan --json`.

    Raises:
      ConfigError: the file is not a plan, or the planned stage does not fit on its chips.
      UserError: the file cannot be read.
    """
    plan = load_json(path)
    if plan.get("fits") is False:
        raise ConfigError(f"--cost: according to {path}, the stage does not fit on its chips, so it has no price")
    numbers = {}
    for key in ("devices", "parameters", "tokens_per_day", "tokens_per_day_no_overlap"):
        value = plan.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ConfigError(
                f"--cost: {path} has no number '{key}': give what kanana plan --config … --stage NAME --json FILE wrote"
            )
        numbers[key] = float(value)
    price = plan.get("price_per_chip_hour")
    if price is not None and (
        isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 < price < math.inf
    ):
        raise ConfigError(f"--cost: {path}: price_per_chip_hour '{price}' is not a positive number")
    return Rate(
        source=path.name,
        topology=str(plan.get("topology", "")),
        chips=int(numbers["devices"]),
        parameters=numbers["parameters"],
        tokens_per_day=(numbers["tokens_per_day"], numbers["tokens_per_day_no_overlap"]),
        price=None if price is None else float(price),
    )
