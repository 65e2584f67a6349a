"""Removal of lines that many documents share (menus, footers, notices), counted over a whole corpus.

Pattern-aware line deduplication (Park et al., "Beyond Line-Level Filtering for the Pretraining Corpora of LLMs",
arXiv:2510.24139). A line is red if it occurs in more than 50 documents, yellow if in more than 3 (English: 1,000 and
1), and otherwise green. In the string of a document's colours, the paper keeps the matches of `g{2,}` or
`g{2,}(y+g{1,})+g`. Stated without backtracking: between two red lines, everything from the first to the last pair of
adjacent green lines is kept.

Choices where the paper is silent (its patterns are known here from a review of it) or treats another kind of text:
- A line is counted as a *pattern*: NFC, case-folded, with white space collapsed and numbers replaced by a placeholder,
  so that `조회 1,234` and `조회 77` are the same. A pattern counts once per document.
- Blank lines, lines in fenced code and lines with fewer than `min_letters` letters have no colour. They are kept, and
  adjacency ignores them.
- Green lines outside the pattern are kept. The paper works on raw pages, where such lines are noise, but an extracted
  document may be a single paragraph. `lone=True` cuts them, as the paper does.
- Counts grow with the corpus; the thresholds are meant for a whole crawl.

Counts are exact except for 64-bit collisions (one pair of lines in 30 corpora of 10^9 distinct lines). Memory holds
`chunk` lines, at most about 100 bytes each; sorted runs on disk take 12 bytes per distinct line of a chunk, the result
8 bytes per pattern that is not green.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import numpy as np

from kanana_jax import config as configs
from kanana_jax.data.arrays import characters, tables
from kanana_jax.data.arrays.documents import batches, join, running
from kanana_jax.data.arrays.hashing import PrefixHash
from kanana_jax.data.arrays.lines import Lines, fenced, split
from kanana_jax.data.arrays.spans import Span
from kanana_jax.data.read import origins as origins_lib
from kanana_jax.data.read import outputs, records
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.record import Broken, Skipped
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import scratch, write_json

COLOURS = ("green", "yellow", "red")
RULES = ("lone_line", "yellow_line", "red_line")  # reasons for which spans are cut
EXAMPLES = 20
FILE = "lines.safetensors"
_REPORT, _BATCH = "report.json", 256


@dataclasses.dataclass(frozen=True)
class LinesConfig:
    """Criteria for duplicate lines.

    Attributes:
      red, yellow: a line in more documents than this has that colour (the paper's values for Korean).
      min_letters: lines with fewer letters, such as `}` or page numbers, are not counted.
    """

    red: int = 50
    yellow: int = 3
    min_letters: int = 2

    def __post_init__(self):
        if not 1 <= self.yellow <= self.red:
            raise ValueError("yellow must be at least 1 and not above red")
        if self.min_letters < 1:
            raise ValueError("min_letters must be at least 1")


@dataclasses.dataclass(frozen=True)
class _Patterns:
    """The line patterns of a batch of documents.

    Attributes:
      codes: the concatenated patterns of all lines.
      starts, ends: the spans of counted lines in `codes`.
      hashes: hashes of the counted lines, uint64.
      lines: all lines of the documents.
      counted: mask of the lines that are counted.
    """

    codes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    hashes: np.ndarray
    lines: Lines
    counted: np.ndarray

    @property
    def of(self) -> np.ndarray:
        """The document number of each counted line."""
        return self.lines.of.take(self.counted)

    @property
    def once(self) -> np.ndarray:
        """The hashes, each once per document."""
        order = np.lexsort((self.hashes, self.of))
        hashes, of = self.hashes.take(order), self.of.take(order)
        return hashes.compress(np.append(True, (hashes[1:] != hashes[:-1]) | (of[1:] != of[:-1]))[: len(of)])


def _patterns(texts: Sequence[str], min_letters: int) -> _Patterns:
    """Computes the patterns of normalised texts."""
    lines = split(join(texts))
    documents = join([text.casefold() for text in texts])  # case folding changes characters but not the lines
    folded = split(documents)
    letters = running(documents.bits & characters.LETTER > 0)
    enough = letters.take(folded.ends) - letters.take(folded.starts) >= min_letters
    counted = (enough & ~fenced(documents, folded)).nonzero()[0]
    codes = documents.codes.copy()
    number = documents.bits & characters.DIGIT > 0
    number[1:-1] |= ((codes[1:-1] == 0x2C) | (codes[1:-1] == 0x2E)) & number[:-2] & number[2:]
    space = documents.bits & characters.SPACE > 0
    codes[number] = ord("0")
    codes[space] = ord(" ")
    kept = np.ones(len(codes), bool)
    kept[1:] = ~(number[1:] & number[:-1] | space[1:] & space[:-1])
    before = running(kept)
    codes = codes.compress(kept)
    starts, ends = before.take(folded.first.take(counted)), before.take(folded.last.take(counted) + 1)
    return _Patterns(codes, starts, ends, PrefixHash(codes).of(starts, ends), lines, counted)


def run(
    config: LinesConfig,
    inputs: Sequence[str],
    output: str | pathlib.Path,
    chunk: int = 1 << 24,
    progress: Callable[[int], None] = lambda documents: None,
) -> dict[str, Any]:
    """Counts the lines of all documents; the result depends neither on their order nor on `chunk`.

    Documents are read twice, the second time only until the most frequent lines have been seen.

    Args:
      inputs: files, folders or globs, see `records.read`.
      output: folder for `lines.safetensors` (`red`, `yellow`: sorted hashes) and `report.json`, each written
        atomically.
      chunk: number of lines held in memory.
      progress: called with the number of documents read so far.

    Returns:
      The content of `report.json`: `documents`, `broken` documents, counted `lines` (once per document), distinct
      `patterns`; for each colour its `patterns`, their `lines`, and the most frequent as `examples` (pattern,
      documents).

    Raises:
      ConfigError: `output` lies in an input, or `chunk` is not positive.
      UserError: there are no documents, the inputs change during the run, or the disk is full.
    """
    if chunk < 1:
        raise ConfigError(f"chunk {chunk}: at least one line must be held in memory")
    output = pathlib.Path(output)
    outputs.apart(output, inputs)
    origins = origins_lib.identify(records.find_all(inputs))
    totals = {"documents": 0, "broken": 0, "lines": 0}
    with scratch(output) as runs:
        number, held, size = 0, [], 0
        for found in _read(config, origins, totals, progress):
            own = found.once
            totals["lines"] += len(own)
            held.append(own)
            size += len(own)
            if size >= chunk:
                _write_run(runs, number, held)
                number, held, size = number + 1, [], 0
        if not totals["documents"]:
            raise UserError(f"no documents in {', '.join(inputs)}: name files, folders or globs that have some")
        _write_run(runs, number, held)
        report = {**totals, **_merge(runs, number + 1, config, chunk), "config": dataclasses.asdict(config)}
        _show(report, config, origins)
        arrays = {name: _mapped(runs / name, np.uint64) for name in COLOURS[1:]}
        tables.write(output / FILE, {"config": report["config"]}, arrays)
        write_json(output / _REPORT, report)
    return report


def _read(
    config: LinesConfig,
    origins: Sequence[Origin],
    totals: dict[str, int],
    progress: Callable[[int], None] = lambda documents: None,
) -> Iterator[_Patterns]:
    for origin in origins:
        for items in records.batches(records.documents_of(origin, source=""), _BATCH):
            texts = [characters.normalise(item["text"]) for item in items if not isinstance(item, Broken)]
            totals["broken"] += sum(isinstance(item, Broken) and not isinstance(item, Skipped) for item in items)
            totals["documents"] += len(texts)
            yield from (_patterns(batch, config.min_letters) for batch in batches(texts))
            progress(totals["documents"])


def _write_run(runs: pathlib.Path, number: int, held: list[np.ndarray]) -> None:
    hashes, counts = np.unique(np.concatenate([*held, np.zeros(0, np.uint64)]), return_counts=True)
    hashes.tofile(runs / f"{number}.hashes")
    counts.astype(np.uint32).tofile(runs / f"{number}.counts")


class _Colour(TypedDict):
    """Counts of one colour; examples are pairs of a number of documents and a pattern's hash."""

    patterns: int
    lines: int
    examples: list[tuple[int, int]]


def _merge(runs: pathlib.Path, count: int, config: LinesConfig, chunk: int) -> dict[str, Any]:
    """Merges the runs, one part of the hash range at a time, and writes the patterns that are not green."""
    sorted_runs = [_mapped(runs / f"{i}.hashes", np.uint64) for i in range(count)]
    counts = [_mapped(runs / f"{i}.counts", np.uint32) for i in range(count)]
    parts = max(1, -(-sum(len(hashes) for hashes in sorted_runs) // chunk))
    edges = [np.uint64((part << 64) // parts) for part in range(parts)]
    bounds = [[*np.searchsorted(hashes, edges).tolist(), len(hashes)] for hashes in sorted_runs]
    colours: dict[str, _Colour] = {name: {"patterns": 0, "lines": 0, "examples": []} for name in COLOURS[:0:-1]}
    patterns = 0
    files = {name: (runs / name).open("wb") for name in colours}
    try:
        for part in range(parts):
            cuts = [slice(bound[part], bound[part + 1]) for bound in bounds]
            hashes = np.concatenate([run[cut] for run, cut in zip(sorted_runs, cuts)])
            order = np.argsort(hashes, kind="stable")
            hashes = hashes.take(order)
            first = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)])
            if not len(first):
                continue
            documents = np.concatenate([run[cut] for run, cut in zip(counts, cuts)]).take(order).astype(np.int64)
            hashes, documents = hashes.take(first), np.add.reduceat(documents, first)
            patterns += len(hashes)
            red = documents > config.red
            for name, own in (("red", red), ("yellow", (documents > config.yellow) & ~red)):
                files[name].write(hashes[own].tobytes())
                about = colours[name]
                about["patterns"] += int(np.count_nonzero(own))
                about["lines"] += int(documents[own].sum())
                most = np.lexsort((hashes[own], -documents[own]))[:EXAMPLES]
                about["examples"] += zip(documents[own][most].tolist(), hashes[own][most].tolist())
                about["examples"] = sorted(about["examples"], key=lambda pair: (-pair[0], pair[1]))[:EXAMPLES]
    finally:
        for file in files.values():
            file.close()
    return {"patterns": patterns, **colours}


def _mapped(path: pathlib.Path, kind: type) -> np.ndarray:
    """Memory-maps an array on disk; returns an empty array for an empty file, which cannot be mapped."""
    size = path.stat().st_size
    return np.memmap(path, kind, "r").view(np.ndarray) if size else np.zeros(0, kind)


def _show(report: dict[str, Any], config: LinesConfig, origins: Sequence[Origin]) -> None:
    """Replaces the hashes of examples by their patterns."""
    wanted = np.sort(np.array([key for name in COLOURS[1:] for _, key in report[name]["examples"]], np.uint64))
    texts: dict[int, str] = {}
    again = _read(config, origins, {"documents": 0, "broken": 0})
    while len(texts) < len(wanted):
        found = next(again, None)
        if found is None:
            raise UserError("the inputs changed while lines were counted: run it again")
        for i in np.isin(found.hashes, wanted).nonzero()[0].tolist():
            codes = found.codes[found.starts[i] : found.ends[i]]
            texts[int(found.hashes[i])] = codes.tobytes().decode("utf-32-le")
    for name in COLOURS[1:]:
        about = report[name]
        about["examples"] = [{"pattern": texts[key], "documents": count} for count, key in about["examples"]]


def opened(folder: str) -> "LineVerdicts":
    """The counts in a folder, cached per process until the file is replaced."""
    return tables.opened(LineVerdicts, folder, FILE)


class LineVerdicts:
    """Finds the lines to cut, given the output folder of `run`; picklable, memory-mapped.

    Args:
      lone: whether to cut green lines outside the pattern as well, as the paper does for raw pages.

    Raises:
      UserError: the folder holds no counts.
    """

    def __init__(self, folder: str | pathlib.Path, lone: bool = False):
        self._folder, self._lone = pathlib.Path(folder), lone
        try:
            about, arrays = tables.read(self._folder / FILE, dict.fromkeys(COLOURS[1:], ("U64", 1)))
            self.config = configs.build(LinesConfig, about["config"], FILE)
            self._red, self._yellow = arrays["red"], arrays["yellow"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise UserError(
                f"{self._folder / FILE} holds no counts of lines ({error}): run `kanana lines --output {folder}` again"
            ) from error

    def __reduce__(self):
        return LineVerdicts, (self._folder, self._lone)

    def spans(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """The spans to cut (`spans.cut`) from each normalised text: start, end and one of `RULES`."""
        return [spans for batch in batches(texts) for spans in self._spans(batch)]

    def _spans(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        found = _patterns(texts, self.config.min_letters)
        colours = np.where(_among(found.hashes, self._yellow), 1, 0)
        colours[_among(found.hashes, self._red)] = 2
        falls = _falls(colours, found.of)
        if not self._lone:
            falls &= colours > 0
        spans: list[list[Span]] = [[] for _ in texts]
        begin = np.cumsum([0, *(len(text) + 1 for text in texts)])
        for i in falls.nonzero()[0].tolist():
            line = found.counted[i]
            document = found.lines.of[line]
            start, end = (int(at[line] - begin[document]) for at in (found.lines.starts, found.lines.ends))
            spans[document].append((start, end, RULES[colours[i]]))
        return [tuple(own) for own in spans]


def _among(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mask of the hashes that occur in a sorted array."""
    if not len(known):
        return np.zeros(len(hashes), bool)
    return known.take(np.minimum(np.searchsorted(known, hashes), len(known) - 1)) == hashes


def _falls(colours: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Mask of the lines that the paper's pattern removes.

    Args:
      colours: each line's index in `COLOURS`.
      of: each line's document.
    """
    at = np.arange(len(colours))
    part = np.cumsum((colours == 2) | np.append(True, of[1:] != of[:-1])[: len(of)])
    pair = at[:-1][(colours[1:] == 0) & (colours[:-1] == 0) & (part[1:] == part[:-1])]
    first, last = np.full(len(at) + 1, len(at)), np.full(len(at) + 1, -1)
    np.minimum.at(first, part.take(pair), pair)
    np.maximum.at(last, part.take(pair), pair + 1)
    return (at < first.take(part)) | (at > last.take(part))
