"""Passages of a text that break a rule, for a report to highlight; for single documents, written for clarity."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from kanana_jax.data.arrays import characters, units
from kanana_jax.data.arrays.documents import join
from kanana_jax.data.arrays.lines import SHORT_LINE
from kanana_jax.data.arrays.lines import split as split_lines
from kanana_jax.data.arrays.spans import Span
from kanana_jax.data.dedup import lines
from kanana_jax.data.filters import c4, decontamination, pii, prose, scores
from kanana_jax.data.filters.phrases import Phrases
from kanana_jax.data.filters.rules import FilterConfig
from kanana_jax.data.filters.signals import UNFILLED

Place = tuple[int, int]
_OF_ALL = (scores.PII, scores.CONTAMINATION)  # signals of the whole text
_LIMIT = 200  # spans; more would not tell a reader more


def spans(rule: str, text: str, config: FilterConfig) -> tuple[Span, ...]:
    """The spans of a normalised text that count towards a rule's signal, in order and without overlap.

    Empty if the signal concerns the whole text (too few words, a missing language).
    """
    if rule not in config.rules:
        return ()
    signal = config.rules[rule].signal
    common = lines.opened(config.lines).spans([text])[0] if config.lines else ()
    rest = prose.of([text], [common])[0] if signal not in _OF_ALL else None
    places = _places(signal, text if rest is None else rest.text, config)
    found = tuple((start, end, rule) for start, end in itertools.islice(_merged(places), _LIMIT))
    return found if rest is None else rest.back(found)


def _places(signal: str, text: str, config: FilterConfig) -> Iterable[Place]:
    found = _PLACES.get(signal)
    if found is not None:
        return found(text, config)
    if match := re.fullmatch(r"(top|duplicate)_(\d+)_gram", signal):
        return _ngrams(text, int(match[2]), match[1] == "top", config)
    if signal.startswith("c4_") and config.c4 is not None:
        return _c4(text, signal, config, config.c4)
    return ()


def _merged(places: Iterable[Place]) -> Iterator[Place]:
    current = None
    for start, end in sorted(places):
        if current is not None and start <= current[1]:
            current = (current[0], max(end, current[1]))
        else:
            if current is not None:
                yield current
            current = (start, end)
    if current is not None:
        yield current


def _lines(text: str, wanted: Callable[[str], bool]) -> Iterator[Place]:
    at = 0
    for line in text.split("\n"):
        if line.strip() and wanted(line):
            yield at, at + len(line)
        at += len(line) + 1


def _repeated_lines(text: str, config: FilterConfig) -> Iterator[Place]:
    seen: set[str] = set()
    return _lines(text, lambda line: line in seen or seen.add(line) is not None)


def _repeated_paragraphs(text: str, config: FilterConfig) -> Iterator[Place]:
    seen: set[str] = set()
    for match in re.finditer(r"(?:.+\n?)+", text):
        if match[0].strip() in seen:
            yield match.span()
        seen.add(match[0].strip())


def _ngrams(text: str, n: int, top: bool, config: FilterConfig) -> Iterator[Place]:
    documents = join([text])
    found = units.split(documents.codes, documents.bits, config.unit)
    words = [text[s:e] for s, e in zip(found.starts.tolist(), found.ends.tolist())]
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(grams)
    if not grams:
        return
    best = counts.most_common(1)[0][0]
    seen: set[tuple[str, ...]] = set()
    for i, gram in enumerate(grams):
        if (counts[gram] > 1 and gram == best) if top else gram in seen:
            yield int(found.starts[i]), int(found.ends[i + n - 1])
        seen.add(gram)


def _c4(text: str, signal: str, config: FilterConfig, rules: c4.C4Config) -> Iterator[Place]:
    if signal == "c4_curly_bracket":
        yield from _pattern(re.escape("{"))(text, config)
    elif signal == "c4_lorem_ipsum":
        yield from _pattern("lorem ipsum")(text, config)
    else:
        documents = join([text])
        for start, end, _ in c4.apply(documents, split_lines(documents), rules).spans[0]:
            yield start, end


def _pattern(pattern: str) -> Callable[[str, FilterConfig], Iterator[Place]]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda text, config: (match.span() for match in compiled.finditer(text))


def _phrases(which: str) -> Callable[[str, FilterConfig], Iterator[Place]]:
    def find(text: str, config: FilterConfig) -> Iterator[Place]:
        return iter(Phrases(getattr(config, which)).find(text))

    return find


def _characters(bit: int) -> Callable[[str, FilterConfig], Iterator[Place]]:
    def find(text: str, config: FilterConfig) -> Iterator[Place]:
        bits = characters.bits_of(characters.code_points(text))
        return ((int(i), int(i) + 1) for i in (bits & bit).nonzero()[0])

    return find


def _script(name: str) -> Callable[[str, FilterConfig], Iterator[Place]]:
    number = characters.SCRIPTS.index(name)

    def find(text: str, config: FilterConfig) -> Iterator[Place]:
        scripts = characters.scripts_of(characters.code_points(text))
        return ((int(i), int(i) + 1) for i in (scripts == number).nonzero()[0])

    return find


def _no_terminal(text: str, config: FilterConfig) -> Iterator[Place]:
    return _lines(
        text, lambda line: not characters.bits_of(characters.code_points(line.rstrip()[-1]))[0] & characters.TERMINAL
    )


def _longest_sentence(text: str, config: FilterConfig) -> Iterator[Place]:
    return iter(
        [max((m.span() for m in re.finditer(r"[^.!?。！？\n]+", text)), key=lambda s: s[1] - s[0], default=(0, 0))]
    )


def _no_letters(text: str, config: FilterConfig) -> Iterator[Place]:
    return (m.span() for m in re.finditer(r"\S+", text) if not any(c.isalpha() for c in m[0]))


def _contaminated(text: str, config: FilterConfig) -> Iterator[Place]:
    if config.contamination:
        yield from (overlap.span for overlap in decontamination.opened(config.contamination).judge([text])[0])


_PLACES: dict[str, Callable[[str, FilterConfig], Iterator[Place]]] = {
    "duplicate_lines": _repeated_lines,
    "duplicate_line_characters": _repeated_lines,
    "fineweb_duplicate_line_characters": _repeated_lines,
    "duplicate_paragraphs": _repeated_paragraphs,
    "duplicate_paragraph_characters": _repeated_paragraphs,
    "bullet_lines": lambda text, config: _lines(text, lambda line: line.lstrip()[0] in "•-"),
    "ellipsis_lines": lambda text, config: _lines(text, lambda line: line.rstrip().endswith(("...", "…"))),
    "short_lines": lambda text, config: _lines(text, lambda line: len(line) <= SHORT_LINE),
    "line_punctuation": _no_terminal,
    "hashes_per_word": _pattern("#"),
    "ellipses_per_word": _pattern(r"\.\.\.|…"),
    "ellipses_per_sentence": _pattern(r"\.\.\.|…"),
    "alphabetic_words": _no_letters,
    "symbols": _characters(characters.SYMBOL),
    "upper": _characters(characters.UPPER),
    "digits": _characters(characters.DIGIT),
    **{name: _script(name) for name in ("hangul", "jamo", "hiragana", "katakana", "han", "latin")},
    "longest_sentence": _longest_sentence,
    **dict.fromkeys(("spam_words", "spam"), _phrases("spam")),
    **dict.fromkeys(("boilerplate_phrases", "boilerplate"), _phrases("boilerplate")),
    "unfilled": lambda text, config: (match.span() for match in UNFILLED.finditer(text)),
    "contamination": _contaminated,
    "pii": lambda text, config: ((found.start, found.end) for found in pii.find(text)),
}


def excerpt(text: str, found: Sequence[Span], size: int) -> tuple[str, list[Span]]:
    """`size` characters of a text around its first span, and the spans in it, moved."""
    start = 0
    if found and found[0][1] > size:
        start = max(0, found[0][0] - size // 4)
    cut = text[start : start + size]
    return cut, [(s - start, min(e - start, len(cut)), label) for s, e, label in found if start <= s < start + len(cut)]
