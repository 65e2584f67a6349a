"""Options of a study: languages, number of random draws, plan and target."""

import dataclasses
import pathlib

import numpy as np

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.languages import tag
from kanana_jax.observatory import cells
from kanana_jax.observatory.tables import Tables

_TELL = "write a tasks.csv with the columns task and language beside the scores"


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a study.

    Attributes:
      language: the local language; "" chooses the language, other than `reference`, with the most tasks.
      reference: the language that models are mostly trained on.
      active_params: whether mixtures of experts count with their active parameters.
      draws: number of samples of every bootstrap and Monte Carlo.
      cutoff: quantile of training compute below which downstream laws are fitted.
      plan, target, cost: as on the command line of `kanana observe`; "" and None: nothing is planned.
    """

    language: str = ""
    reference: str = "en"
    active_params: bool = False
    draws: int = 2000
    seed: int = 0
    cutoff: float = 0.6
    plan: str = ""
    target: str = ""
    cost: pathlib.Path | None = None

    def __post_init__(self):
        for key in ("language", "reference"):
            object.__setattr__(self, key, tag(getattr(self, key)))
        for key in ("plan", "target"):  # names in tables are NFC; a macOS shell may pass decomposed text
            object.__setattr__(self, key, cells.composed(getattr(self, key)))
        if self.draws < 100:
            raise ConfigError(f"--draws {self.draws}: intervals need at least 100")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed} is negative")
        if not 0 < self.cutoff < 1:
            raise ConfigError(f"--flops-cutoff {self.cutoff:g} must be a quantile between 0 and 1")
        if self.target and not self.plan:
            raise ConfigError("--target needs --plan base=MODEL")
        if self.cost and not self.plan:
            raise ConfigError("--cost needs --plan base=MODEL")

    def rng(self, part: int) -> np.random.Generator:
        """A random stream for one part of the study, independent of the draws of other parts."""
        return np.random.default_rng([self.seed, part])


def local_language(tables: Tables, options: Options) -> str:
    """The local language; "" if no task is known to be in a language other than the reference.

    Without a local language, the study is limited to components and laws.

    Raises:
      ConfigError: the given language has no task or is the reference, or the reference has neither tasks nor budgets.
    """
    counts = tables.tasks["language"][tables.tasks["language"] != ""].value_counts()
    if len(counts) and options.reference not in {*counts.index, *tables.languages}:
        known = sorted({*counts.index, *tables.languages})
        raise ConfigError(
            f"--reference '{options.reference}' has neither a task nor token budgets, "
            f"{nearest(options.reference, known)}"
        )
    if options.language == options.reference:
        raise ConfigError(f"--language '{options.language}' is the reference language: give another --reference")
    if options.language:
        if options.language not in counts.index:
            raise ConfigError(
                f"--language '{options.language}' has no task, {nearest(options.language, list(counts.index))}"
                if len(counts)
                else f"--language '{options.language}': the languages of all tasks are unknown; {_TELL}"
            )
        return options.language
    others = [lang for lang in counts.index if lang != options.reference]
    if not len(counts) and options.plan:
        raise ConfigError(f"--plan needs tasks in a local language, and the languages of all are unknown: {_TELL}")
    if not others and options.plan:
        raise ConfigError(f"--plan needs tasks in a local language: all of these are in '{options.reference}'")
    return others[0] if others else ""
