"""Lines that many documents have in common: menus, footers, notices; counted over a corpus, cut out of documents.

Pattern-aware line deduplication (Park et al., "Beyond Line-Level Filtering for the Pretraining Corpora of LLMs",
arXiv:2510.24139). A line is red if more than 50 documents have it, yellow if more than 3 (English: 1,000 and 1), else
green. In the string of a document's colours the paper keeps what matches `g{2,}` or `g{2,}(y+g{1,})+g`. Put without
backtracking: between two red lines, all from the first to the last pair of green neighbours stays.

Our reading, where the paper does not say (its patterns are taken from a review of it) or is about other text:
- A line is counted as a *pattern*, in NFC, without case, with white space collapsed and numbers as one placeholder, so
  that `조회 1,234` and `조회 77` are one; once a document.
- Lines that are blank, inside fenced code, or of fewer letters than `min_letters` have no colour: they stay, and
  neighbours are found across them.
- A green line outside of the pattern stays: the paper's crawl is raw pages, where such a line is noise, but a document
  that was extracted may be a single paragraph. `lone=True` cuts it as the paper does.
- Counts grow with the corpus; the thresholds are for a whole crawl.

Counting is exact but for collisions of 64 bits (one pair of lines in 30 corpora of 10^9 different ones). It holds
`chunk` lines in memory, at most about 100 bytes each; sorted runs on disk take 12 bytes for each different line of a
chunk, the result 8 bytes for each pattern that is not green.
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
RULES = ("lone_line", "yellow_line", "red_line")  # names of the spans that are cut
EXAMPLES = 20
FILE = "lines.safetensors"
_REPORT, _BATCH = "report.json", 256


@dataclasses.dataclass(frozen=True)
class LinesConfig:
    """Criteria for a duplicate line.

    Attributes:
      red, yellow: documents that have it, above which it is of that colour (the paper's for Korean).
      min_letters: of a line that is counted; `}` and page numbers have none.
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
    """The counted lines of some documents.

    Attributes:
      codes: the patterns of all lines, one after the other.
      starts, ends: where those of counted lines are in it.
      hashes: of these, uint64.
      lines: all lines of the documents, and which of them are counted.
    """

    codes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    hashes: np.ndarray
    lines: Lines
    counted: np.ndarray

    @property
    def of(self) -> np.ndarray:
        """The documents of counted lines."""
        return self.lines.of.take(self.counted)

    @property
    def once(self) -> np.ndarray:
        """The hashes, each once a document."""
        order = np.lexsort((self.hashes, self.of))
        hashes, of = self.hashes.take(order), self.of.take(order)
        return hashes.compress(np.append(True, (hashes[1:] != hashes[:-1]) | (of[1:] != of[:-1]))[: len(of)])


def _patterns(texts: Sequence[str], min_letters: int) -> _Patterns:
    """The patterns of normalised texts."""
    lines = split(join(texts))
    documents = join([text.casefold() for text in texts])  # other characters, but the same lines
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
    """Counts the lines of all documents; the same documents in any order give the same bytes, for any `chunk`.

    Documents are read twice, the second time only until the most frequent lines have been seen.

    Args:
      inputs: files, folders or globs, see `records.read`.
      output: folder of `lines.safetensors` (`red`, `yellow`: sorted hashes) and `report.json`, each written whole or
        not at all.
      chunk: lines that are held in memory.
      progress: called with the number of documents so far.

    Returns:
      `report.json`: `documents`, `broken` ones, `lines` (counted, once a document), different `patterns`; by colour
      its `patterns`, their `lines`, and the most frequent as `examples` (pattern, documents).

    Raises:
      ConfigError: `output` lies in an input.
      UserError: no documents, or the disk is full.
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
    """Counts by colour; examples are documents and the pattern's hash."""

    patterns: int
    lines: int
    examples: list[tuple[int, int]]


def _merge(runs: pathlib.Path, count: int, config: LinesConfig, chunk: int) -> dict[str, Any]:
    """Adds the runs up, a part of the hashes' range after the other, and writes what is not green."""
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
    """An array on disk; of an empty file, which cannot be mapped, an empty one."""
    size = path.stat().st_size
    return np.memmap(path, kind, "r").view(np.ndarray) if size else np.zeros(0, kind)


def _show(report: dict[str, Any], config: LinesConfig, origins: Sequence[Origin]) -> None:
    """Puts patterns in the place of the hashes of examples."""
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
    """The counts of a folder, which a process reads once until they are replaced."""
    return tables.opened(LineVerdicts, folder, FILE)


class LineVerdicts:
    """The lines to cut, from a folder of `run`; picklable, memory-mapped.

    Args:
      lone: also cuts green lines outside of the pattern, as the paper does for raw pages.
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
        """The lines of each normalised text that are to be cut (`spans.cut`): start, end and one of `RULES`."""
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
      colours: places in `COLOURS`.
      of: the document of each line.
    """
    at = np.arange(len(colours))
    part = np.cumsum((colours == 2) | np.append(True, of[1:] != of[:-1])[: len(of)])
    pair = at[:-1][(colours[1:] == 0) & (colours[:-1] == 0) & (part[1:] == part[:-1])]
    first, last = np.full(len(at) + 1, len(at)), np.full(len(at) + 1, -1)
    np.minimum.at(first, part.take(pair), pair)
    np.maximum.at(last, part.take(pair), pair + 1)
    return (at < first.take(part)) | (at > last.take(part))
