"""Rules are thresholds over signals; a verdict names every rule that a document breaks."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from kanana_jax.config import ConfigError, nearest
from kanana_jax.data.dedup.verdicts import Verdicts
from kanana_jax.data.filters import characters, pii, units
from kanana_jax.data.filters.c4 import C4Config, Span, cut
from kanana_jax.data.filters.signals import NAMES, Lexicon, Signals, measure
from kanana_jax.data.records import Record

META = "meta."


@dataclasses.dataclass(frozen=True)
class Rule:
    """A document breaks it if the signal is below `min` or above `max`.

    Attributes:
      signal: a field of `signals.Signals`, or `meta.NAME`: a number that the record brings in its `meta`.
      missing: whether a record without that `meta` number passes.
    """

    signal: str
    min: float = -math.inf
    max: float = math.inf
    missing: bool = False

    def __post_init__(self):
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.signal not in NAMES and not self.signal.startswith(META):
            raise ValueError(f"signal '{self.signal}' is unknown: {nearest(self.signal, list(NAMES))}")

    def passes(self, value: float | None) -> bool:
        return self.missing if value is None or math.isnan(value) else self.min <= value <= self.max


@dataclasses.dataclass(frozen=True)
class FilterConfig:
    """What is measured of a language's documents, which of them stay, and what is cut out of them.

    Attributes:
      unit: what repetition and word statistics count.
      stop_words, stop_endings, spam, boilerplate: the language's lists, see `signals.Signals`.
      rules: name → rule; the first that is broken is the document's reason.
      c4: C4's line rules, for the signals `c4_*`; None where a language has no use for them.
      cut_lines: whether the lines that break them are cut out of kept documents.
      pii: whether personal data in kept documents are replaced by `<EMAIL>`, `<PHONE>` … (`pii.KINDS`).
      duplicates: folder of `kanana dedup`, whose verdicts then drop documents as `exact_duplicate`, `near_duplicate`.
    """

    unit: units.Unit = "word"
    stop_words: tuple[str, ...] = ()
    stop_endings: tuple[str, ...] = ()
    spam: tuple[str, ...] = ()
    boilerplate: tuple[str, ...] = ()
    rules: dict[str, Rule] = dataclasses.field(default_factory=dict)
    c4: C4Config | None = None
    cut_lines: bool = False
    pii: bool = False
    duplicates: str = ""

    def __post_init__(self):
        wants_c4 = self.cut_lines or any(rule.signal.startswith("c4_") for rule in self.rules.values())
        if wants_c4 and self.c4 is None:
            raise ValueError("cut_lines and rules on c4_* signals need a section c4")
        if any(len(ending) != 1 for ending in self.stop_endings):
            raise ValueError("stop_endings must be single characters")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a document.

    Attributes:
      record: with the text normalised and the cuts made.
      rules: every rule that it breaks, in the config's order; empty if it is kept.
      signals: of the text before the cuts; None where nothing was configured.
      spans: what was cut, in the normalised text.
      pii: kind → how many personal data were replaced.
    """

    record: Record
    rules: tuple[str, ...] = ()
    signals: Signals | None = None
    spans: tuple[Span, ...] = ()
    pii: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Filter:
    """Record → `Verdict`: pure, picklable."""

    def __init__(self, config: FilterConfig, select: Mapping[str, Rule] = {}):
        self._config = config
        self._rules = {**config.rules, **{f"select.{name}": rule for name, rule in select.items()}}
        self._lexicon = Lexicon(config.stop_words, config.stop_endings, config.spam, config.boilerplate)
        self._duplicates = Verdicts(config.duplicates) if config.duplicates else None

    def __call__(self, record: Record) -> Verdict:
        return self.judge([record])[0]

    def judge(self, batch: Sequence[Record]) -> list[Verdict]:
        """Verdicts of many records: the same, and several times faster for short ones."""
        texts = [characters.normalise(record["text"]) for record in batch]
        config, verdicts = self._config, []
        for record, text, (measured, c4) in zip(batch, texts, measure(texts, config.unit, self._lexicon, config.c4)):
            broken = broken_rules(self._rules, measured, record)
            duplicate = self._duplicates(record["id"]) if self._duplicates else None
            broken = broken if duplicate is None else (*broken, duplicate)
            spans = c4 if config.cut_lines and not broken else ()
            text, replaced = cut(text, spans) if spans else text, {}
            if config.pii and not broken:
                text, replaced = pii.replace(text)
            verdicts.append(Verdict({**record, "text": text}, broken, measured, spans, replaced))
        return verdicts


def broken_rules(rules: Mapping[str, Rule], measured: Signals, record: Record) -> tuple[str, ...]:
    """Names of all rules that a document breaks; needs no text, so that other thresholds can be tried at once."""
    return tuple(name for name, rule in rules.items() if not rule.passes(_value(rule.signal, measured, record)))


def _value(signal: str, measured: Signals, record: Record) -> float | None:
    if not signal.startswith(META):
        return getattr(measured, signal)
    value = record.get("meta", {}).get(signal.removeprefix(META))
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def keep_all(record: Record) -> Verdict:
    """What acts where no filter is configured."""
    return Verdict(record)


@dataclasses.dataclass(frozen=True)
class Filters:
    """The filters of a recipe, by the name of a source, by language, or for all others (`default`)."""

    configs: dict[str, FilterConfig]

    def of(self, source: str, lang: str, select: Mapping[str, Rule] = {}):
        """The filter of a source's documents; `select` are further rules (of a stage)."""
        for key in (source, lang, "default"):
            if key in self.configs:
                return Filter(self.configs[key], select)
        return Filter(FilterConfig(), select) if select else keep_all


def check_names(configs: Mapping[str, FilterConfig], names: tuple[str, ...], path: str) -> None:
    """Every filter must be of a source or language among `names`, or `default`.

    Raises:
      ConfigError: names the key.
    """
    known = (*names, "default")
    for key in configs:
        if key not in known:
            raise ConfigError(f"config '{path}.{key}' is no source or language: {nearest(key, list(known))}")


def count(totals: dict[str, list[int]], rules: tuple[str, ...]) -> None:
    """Adds a dropped document to `{rule: [any, only, first]}`: broke it, broke only it, broke it first."""
    for i, rule in enumerate(rules):
        numbers = totals.setdefault(rule, [0, 0, 0])
        numbers[0] += 1
        numbers[1] += len(rules) == 1
        numbers[2] += i == 0
