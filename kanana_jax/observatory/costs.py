"""Time and money of a number of tokens, from what `kanana plan --json` wrote of the training stage."""

import dataclasses
import math
import pathlib

from kanana_jax.errors import ConfigError
from kanana_jax.files import load_json


@dataclasses.dataclass(frozen=True)
class Rate:
    """What training a model costs, by the plan of a stage; pairs are (with perfect overlap, with none).

    Attributes:
      parameters: of the model that was planned; other sizes are taken to cost in proportion, as 6·N·D does.
      tokens_per_day: of all chips together.
      price: of a chip-hour; None: not known.
    """

    source: str
    topology: str
    chips: int
    parameters: float
    tokens_per_day: tuple[float, float]
    price: float | None

    def days(self, tokens: float, params: float) -> list[float]:
        """Days of training `params` parameters on `tokens` tokens, [fewest, most]."""
        return [tokens * params / self.parameters / per_day for per_day in self.tokens_per_day]

    def money(self, tokens: float, params: float) -> list[float] | None:
        """Its price, [least, most]; None where a chip-hour has none."""
        if self.price is None:
            return None
        return [days * 24 * self.chips * self.price for days in self.days(tokens, params)]


def read(path: pathlib.Path) -> Rate:
    """Reads PLAN.json.

    Raises:
      ConfigError: it is no plan, or one that does not fit on its chips.
      UserError: it cannot be read.
    """
    plan = load_json(path)
    if plan.get("fits") is False:
        raise ConfigError(f"--cost: by {path} the stage does not fit on its chips, so that it has no price")
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
