"""Rules are thresholds over signals; a verdict names every rule that a document breaks."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from kanana_jax import languages
from kanana_jax.data.arrays import characters, units
from kanana_jax.data.arrays.spans import Span, cut, merged
from kanana_jax.data.dedup import lines
from kanana_jax.data.dedup import verdicts as duplicates
from kanana_jax.data.filters import licences, pii, prose, scores
from kanana_jax.data.filters.c4 import C4Config
from kanana_jax.data.filters.signals import NAMES, Lexicon, Signals, measure
from kanana_jax.data.quality.quality_model import QualityModel
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.record import Record
from kanana_jax.errors import ConfigError, nearest

META = "meta."


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule, which a document breaks if the signal is below `min` or above `max`.

    Attributes:
      signal: a field of `signals.Signals`; `language`, `pii`, `contamination` or `quality.NAME`, if the config has
        them measured (`scores.Scorer`); or `meta.NAME`: a number in the record's `meta`.
      missing: whether a record without that `meta` number passes.
      where: signal of the text → the least value at which the rule applies; a share of two lines says nothing.
    """

    signal: str
    min: float = -math.inf
    max: float = math.inf
    missing: bool = False
    where: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        known = (*NAMES, scores.LANGUAGE, scores.PII, scores.CONTAMINATION)
        if self.signal not in known and not self.signal.startswith((META, scores.QUALITY)):
            raise ValueError(f"signal '{self.signal}' is unknown: {nearest(self.signal, list(known))}")
        for signal in self.where:
            if signal not in NAMES:
                raise ValueError(f"where '{signal}': not a signal of the text; {nearest(signal, list(NAMES))}")

    def asked(self, measured: Signals) -> bool:
        """Returns whether the rule applies to a text with these signals."""
        return all(getattr(measured, signal) >= least for signal, least in self.where.items())

    def passes(self, value: float | None) -> bool:
        return self.missing if value is None or math.isnan(value) else self.min <= value <= self.max


@dataclasses.dataclass(frozen=True)
class FilterConfig:
    """The filter of one language: signals, rules, and the parts cut from kept documents.

    Attributes:
      unit: the unit of repetition and word statistics.
      stop_words, stop_endings, spam, boilerplate: the language's lists, see `signals.Signals`.
      rules: name → rule; the first broken rule is the reason given for a document.
      c4: C4's line rules, for the signals `c4_*`; None if they do not suit the language.
      cut_lines: whether lines that break C4's rules are cut from kept documents.
      pii: whether personal data are counted (signal `pii`), and replaced in kept documents by `<EMAIL>`, `<PHONE>` …
        (`pii.KINDS`).
      language: language whose share of the text is measured (signal `language`), e.g. `ko`, as a tag in any form;
        empty: not measured.
      quality: name → classifier, whose score is the signal `quality.NAME`.
      contamination: folder of `kanana contamination`, to measure the share of evaluation sets in a document (signal
        `contamination`).
      lines: folder of `kanana lines`, whose verdicts cut lines shared by many documents, before anything is measured.
      duplicates: folder of `kanana dedup`, whose verdicts then drop documents as `exact_duplicate`, `near_duplicate`;
        documents that were not judged, or changed since, are an error.
      licences: SPDX ids; documents whose `meta` names no licence, or others, are dropped by the rule `licence`
        (`licences.PERMISSIVE` for code). Empty: no check.
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
    language: str = ""
    quality: dict[str, QualityModel] = dataclasses.field(default_factory=dict)
    contamination: str = ""
    lines: str = ""
    duplicates: str = ""
    licences: tuple[str, ...] = ()

    def __post_init__(self):
        wants_c4 = self.cut_lines or any(rule.signal.startswith("c4_") for rule in self.rules.values())
        if wants_c4 and self.c4 is None:
            raise ValueError("cut_lines and rules on c4_* signals need a section c4")
        if any(len(ending) != 1 for ending in self.stop_endings):
            raise ValueError("stop_endings must be single characters")
        if self.licences and licences.RULE in self.rules:
            raise ValueError(f"the rule '{licences.RULE}' belongs to 'licences': give yours another name")
        check_scores(self, self.rules)

    @property
    def scores(self) -> tuple[str, ...]:
        """Signals beyond those of `signals.Signals`."""
        return scores.names(self.language, self.pii, self.contamination, self.quality)


def check_scores(config: FilterConfig, rules: Mapping[str, Rule]) -> None:
    """Checks that rules only look at scores that the config measures.

    Raises:
      ValueError: names the rule.
    """
    for name, rule in rules.items():
        if rule.signal not in (*NAMES, *config.scores) and not rule.signal.startswith(META):
            key = rule.signal.partition(".")[0]
            raise ValueError(f"rule '{name}' looks at '{rule.signal}', which is not measured: set '{key}'")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome for one document.

    Attributes:
      record: the record with normalised text and the cuts applied.
      rules: every broken rule, in the config's order; empty if the document is kept.
      signals: of its prose (`prose.of`), before C4's cuts; None if no filter was configured.
      scores: further measurements, by name.
      spans: the parts cut, as positions in the normalised text.
      pii: kind → number of personal data replaced.
      contamination: evaluation set → number of its n-grams in the document.
    """

    record: Record
    rules: tuple[str, ...] = ()
    signals: Signals | None = None
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    pii: Mapping[str, int] = dataclasses.field(default_factory=dict)
    contamination: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Filter:
    """Record → `Verdict`: pure, picklable."""

    def __init__(self, config: FilterConfig, select: Mapping[str, Rule] = {}):
        self._config = config
        self._rules = {**config.rules, **{f"select.{name}": rule for name, rule in select.items()}}
        check_scores(config, self._rules)
        self._scorer = scores.Scorer(config.language, config.pii, config.contamination, config.quality)
        self._lines = lines.opened(config.lines) if config.lines else None
        self._lexicon = Lexicon(config.stop_words, config.stop_endings, config.spam, config.boilerplate)
        self._duplicates = duplicates.opened(config.duplicates) if config.duplicates else None

    def __call__(self, record: Record) -> Verdict:
        return self.judge([record])[0]

    def judge(self, batch: Sequence[Record]) -> list[Verdict]:
        """Verdicts on many records: the same results, several times faster for short ones."""
        texts = [characters.normalise(record["text"]) for record in batch]
        config, verdicts = self._config, []
        common = self._lines.spans(texts) if self._lines else [()] * len(texts)
        rests = prose.of(texts, common)
        written = [text if rest is None else rest.text for text, rest in zip(texts, rests)]
        staying = [cut(text, spans) if spans else text for text, spans in zip(texts, common)]
        table, overlaps = self._scorer(staying, written)
        found = measure(written, config.unit, self._lexicon, config.c4)
        for i, (record, text, (measured, c4)) in enumerate(zip(batch, texts, found)):
            if rests[i] is not None:
                measured = measured._replace(prose=len(written[i]) / max(len(staying[i]), 1))
            scored = dict(zip(self._scorer.names, table[i].tolist()))
            broken = broken_rules(self._rules, measured, scored, record)
            if config.licences and not licences.passes(record.get("meta", {}), config.licences):
                broken = (licences.RULE, *broken)
            duplicate = self._duplicates(record) if self._duplicates else None
            broken = broken if duplicate is None else (*broken, duplicate)
            rest, own = rests[i], c4 if config.cut_lines and not broken else ()
            spans = () if broken else merged(own if rest is None else rest.back(own), common[i])
            text, replaced = cut(text, spans) if spans else text, {}
            if scored.get(scores.PII) and not broken:
                text, replaced = pii.replace(text)
            sets = {overlap.set: overlap.ngrams for overlap in overlaps[i]}
            verdicts.append(Verdict({**record, "text": text}, broken, measured, scored, spans, replaced, sets))
        return verdicts


def broken_rules(
    rules: Mapping[str, Rule], measured: Signals, scored: Mapping[str, float], record: Record
) -> tuple[str, ...]:
    """Names of all rules that a document breaks; needs no text, so that other thresholds can be tried quickly."""
    return tuple(
        name
        for name, rule in rules.items()
        if not rule.passes(_value(rule.signal, measured, scored, record)) and rule.asked(measured)
    )


def _value(signal: str, measured: Signals, scored: Mapping[str, float], record: Record) -> float | None:
    if signal in scored:
        return scored[signal]
    if not signal.startswith(META):
        return getattr(measured, signal)
    value = record.get("meta", {}).get(signal.removeprefix(META))
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def keep_all(record: Record) -> Verdict:
    """The filter used if none is configured."""
    return Verdict(record)


@dataclasses.dataclass(frozen=True)
class Filters:
    """The filters of a recipe, by source name, by language, or for all others (`default`)."""

    configs: dict[str, FilterConfig]

    def __post_init__(self):
        tags = [languages.tag(key) for key in self.configs if languages.is_tag(key)]
        for key in self.configs:
            if languages.is_tag(key) and tags.count(languages.tag(key)) > 1:
                raise ConfigError(f"config 'filters.{key}': '{languages.tag(key)}' has two filters: keep one")

    def of(self, source: str, lang: str, select: Mapping[str, Rule] = {}, origins: Sequence[Origin] = ()):
        """The filter for a source's documents; `select` has further rules (of a stage).

        Raises:
          UserError: the documents of `origins` were not searched for duplicates.
        """
        config = self.config_of(source, lang)
        if config is None and not select:
            return keep_all
        if config is not None and config.duplicates:
            duplicates.opened(config.duplicates).check(origins)
        return Filter(config or FilterConfig(), select)

    def config_of(self, source: str, lang: str) -> FilterConfig | None:
        """The config for a source's documents."""
        named = source if source in self.configs else languages.key_of(lang, self.configs)
        return self.configs.get(named or "default", self.configs.get("default"))


def check_names(configs: Mapping[str, FilterConfig], names: tuple[str, ...], path: str) -> None:
    """Checks that every filter is named after a source or language in `names`, or `default`.

    Raises:
      ConfigError: names the key.
    """
    known = (*names, "default")
    for key in configs:
        if key not in known and not (languages.is_tag(key) and languages.tag(key) in known):
            raise ConfigError(f"config '{path}.{key}' is neither a source nor a language: {nearest(key, list(known))}")


def check_select(
    configs: Mapping[str, FilterConfig], source: str, lang: str, rules: Mapping[str, Rule], path: str
) -> None:
    """Checks that a stage's further rules only look at measurements of their source's filter.

    Raises:
      ConfigError: names the key.
    """
    try:
        check_scores(Filters(dict(configs)).config_of(source, lang) or FilterConfig(), rules)
    except ValueError as error:
        raise ConfigError(f"config '{path}': {error}") from error


def count(totals: dict[str, list[int]], rules: tuple[str, ...]) -> None:
    """Adds a dropped document to `{rule: [any, only, first]}`: broke it, broke only it, broke it first."""
    for i, rule in enumerate(rules):
        numbers = totals.setdefault(rule, [0, 0, 0])
        numbers[0] += 1
        numbers[1] += len(rules) == 1
        numbers[2] += i == 0
