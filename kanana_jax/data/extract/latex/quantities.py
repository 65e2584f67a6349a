"""siunitx's numbers and units: `\\SI{5.97e24}{\\kilogram}` → 5.97 × 10²⁴ kg."""

import re
from collections.abc import Sequence

from kanana_jax.data.extract import markup
from kanana_jax.data.extract.latex import words as latex_words

# Command → number of arguments.
COMMANDS = {"SI": 2, "qty": 2, "si": 1, "unit": 1, "num": 1, "SIrange": 3, "qtyrange": 3, "numrange": 2, "ang": 1,
            "numlist": 1, "SIlist": 2, "qtylist": 2, "numproduct": 1, "qtyproduct": 2}  # fmt: skip
_EXPONENT = re.compile(r"(\d)[eEdD]([+-]?\d{1,9})(?!\d)")


def render(name: str, values: Sequence[str]) -> str:
    """The text of a command, given its arguments."""
    values = [value.strip() for value in values]
    unit = ""
    if name not in ("num", "ang", "numrange", "numlist", "numproduct"):
        unit = re.sub(r"\\([A-Za-z]+)\s*", lambda m: latex_words.UNITS.get(m[1], m[1]), values.pop())
        unit = re.sub(r"[{}~]", "", unit)
    if name.endswith("range"):
        values = ["–".join(values)]
    numbers = [_number(value.replace(";", "" if name == "ang" else ", ")) for value in values]
    return " ".join(filter(None, [*numbers, unit])) + ("°" if name == "ang" else "")


def _number(value: str) -> str:
    value = _EXPONENT.sub(lambda m: f"{m[1]} × 10{markup.superscript(m[2].lstrip('+').replace('-', '−'))}", value)
    return value.replace("+-", " ± ").replace("\\pm", " ± ").replace(" x ", " × ")
