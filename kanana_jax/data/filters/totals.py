"""The counts of a filter job: chunk by chunk in the workers, all together in the job."""

import collections
import dataclasses
import gzip
import hashlib
import heapq
import itertools
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from kanana_jax.data.arrays.characters import normalise
from kanana_jax.data.filters import Filters, evidence
from kanana_jax.data.filters.appended import Good
from kanana_jax.data.filters.rules import Filter, FilterConfig, Verdict, count
from kanana_jax.data.filters.signals import NAMES
from kanana_jax.data.read.record import PLACE, Broken, Line, Record, Skipped

SAMPLE = 4000  # documents whose signals are kept for the histograms
EXAMPLES = 5  # documents shown for each rule, and for kept ones
READ = 20_000  # characters of an example that are searched for the places that broke a rule
EXCERPT = 1500  # characters shown of an example


@dataclasses.dataclass
class Chunk:
    """A worker's result."""

    kept: bytes
    dropped: bytes
    signals: np.ndarray
    sources: dict[str, dict[str, Any]]
    pairs: collections.Counter
    sample: list[tuple[int, int]]  # (order by hash of the id, row of `signals`)
    examples: list[tuple[str, int, dict[str, Any]]]
    broken: list[str]
    skipped: collections.Counter[str]
    ids: list[str]
    bytes: int
    seconds: float


def columns(configs: Mapping[str, FilterConfig]) -> tuple[str, ...]:
    """The signals of every document and the scores that any of the configs asks for."""
    return (*NAMES, *sorted({name for config in configs.values() for name in config.scores}))


def judge_chunk(configs: Mapping[str, FilterConfig], lang: str, keep_dropped: bool, items: list) -> Chunk:
    """Filters some documents; a pure function except for `seconds`."""
    began = time.process_time()
    items = [item.parse() if isinstance(item, Line) else item for item in items]
    verdicts = iter(_verdicts(Filters(dict(configs)), lang, [x for x in items if not isinstance(x, Broken)]))
    out: dict[bool, list[bytes]] = {True: [], False: []}
    names = columns(configs)[len(NAMES) :]
    rows, sources, pairs, sample, examples, broken, ids, size = [], {}, collections.Counter(), [], [], [], [], 0
    skipped: collections.Counter[str] = collections.Counter()
    for item in items:
        if isinstance(item, Skipped):
            skipped[item.reason] += 1
            continue
        if isinstance(item, Broken):
            broken.append(f"{item.where}: {item.reason}")
            continue
        verdict = next(verdicts)
        totals = sources.setdefault(item["source"], _nothing())
        totals["documents"] += 1
        totals["kept"] += not verdict.rules
        if verdict.signals is None:
            own = item.get("lang", lang)
            totals["unjudged"][own] = totals["unjudged"].get(own, 0) + 1
        count(totals["rules"], verdict.rules)
        for kind, n in verdict.pii.items():
            totals["pii"][kind] = totals["pii"].get(kind, 0) + n
        for name in verdict.contamination:
            totals["contamination"][name] = totals["contamination"].get(name, 0) + 1
        pairs.update(itertools.combinations(sorted(verdict.rules), 2))
        order = int.from_bytes(hashlib.blake2b(item["id"].encode(), digest_size=7).digest(), "big")
        sample.append((order, len(rows)))
        measured = verdict.signals if verdict.signals is not None else (np.nan,) * len(NAMES)
        rows.append((*measured, *(verdict.scores.get(name, np.nan) for name in names)))
        shown = {
            "id": item["id"],
            "lang": item.get("lang", lang),
            "source": item["source"],
            "text": normalise(item["text"])[:READ],
            "spans": list(verdict.spans),
            "rules": list(verdict.rules),
        }
        examples += [(rule, order, shown) for rule in verdict.rules or ("",)]
        if not verdict.rules or keep_dropped:
            record = {key: value for key, value in verdict.record.items() if key != PLACE}
            record |= {"rules": list(verdict.rules)} if verdict.rules else {}
            out[not verdict.rules].append(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        ids.append(item["id"])
        size += len(item["text"].encode("utf-8", "replace"))
    best: dict[str, list] = collections.defaultdict(list)
    for rule, order, shown in examples:
        best[rule].append((order, shown))
    few = [
        (rule, order, shown)
        for rule, found in best.items()
        for order, shown in heapq.nsmallest(EXAMPLES, found, key=lambda pair: pair[0])
    ]
    return Chunk(
        _member(out[True]),
        _member(out[False]),
        np.array(rows, np.float32).reshape(-1, len(NAMES) + len(names)),
        sources,
        pairs,
        heapq.nsmallest(SAMPLE, sample),
        few,
        broken,
        skipped,
        ids,
        size,
        time.process_time() - began,
    )


def _nothing() -> dict[str, Any]:
    """Counts of a source: documents, kept, by rule, personal data by kind, documents by evaluation set.

    `unjudged`: documents to which no filter applies, by language.
    """
    return {"documents": 0, "kept": 0, "rules": {}, "pii": {}, "contamination": {}, "unjudged": {}}


def _verdicts(filters: Filters, lang: str, items: list[Record]) -> list[Verdict]:
    """Verdicts in the order of the items, with one call per filter for all of its documents."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault((item["source"], item.get("lang", lang)), []).append(i)
    verdicts: dict[int, Verdict] = {}
    for (source, own), places in groups.items():
        judge = filters.of(source, own)
        batch = [items[i] for i in places]
        found = judge.judge(batch) if isinstance(judge, Filter) else [judge(record) for record in batch]
        verdicts.update(zip(places, found))
    return [verdicts[i] for i in range(len(items))]


def _member(lines: list[bytes]) -> bytes:
    return gzip.compress(b"".join(lines), 4, mtime=0) if lines else b""


class Totals:
    """The counts so far, which `state.json` stores."""

    def __init__(self, state: Mapping[str, Any] | None):
        state = state or {}
        self.chunks: int = state.get("chunks", 0)
        self.good: dict[str, Good] = {name: tuple(part) for name, part in state.get("good", {}).items()}
        self.sources: dict[str, Any] = state.get("sources", {})
        self.pairs = collections.Counter({tuple(k.split("\t")): n for k, n in state.get("pairs", {}).items()})
        self.sample: list[tuple[int, list[float]]] = [tuple(x) for x in state.get("sample", [])]
        self.examples: dict[str, list[tuple[int, Any]]] = {
            rule: [tuple(x) for x in found] for rule, found in state.get("examples", {}).items()
        }
        self.broken: int = state.get("broken", 0)
        self.first_broken: str = state.get("first_broken", "")
        self.skipped: collections.Counter[str] = collections.Counter(state.get("skipped", {}))
        self.bytes: int = state.get("bytes", 0)
        self.seconds: float = state.get("seconds", 0.0)

    def add(self, chunk: Chunk) -> None:
        self.chunks += 1
        for name, found in chunk.sources.items():
            into = self.sources.setdefault(name, _nothing())
            into["documents"] += found["documents"]
            into["kept"] += found["kept"]
            for key in ("pii", "contamination", "unjudged"):
                for kind, n in found[key].items():
                    into[key][kind] = into[key].get(kind, 0) + n
            for rule, numbers in found["rules"].items():
                old = into["rules"].get(rule, [0, 0, 0])
                into["rules"][rule] = [a + b for a, b in zip(old, numbers)]
        self.pairs.update(chunk.pairs)
        new = [(order, chunk.signals[row].tolist()) for order, row in chunk.sample]
        self.sample = heapq.nsmallest(SAMPLE, self.sample + new, key=lambda pair: pair[0])
        for rule, order, shown in chunk.examples:
            found = [*self.examples.get(rule, []), (order, shown)]
            self.examples[rule] = heapq.nsmallest(EXAMPLES, found, key=lambda pair: pair[0])
        self.broken += len(chunk.broken)
        self.first_broken = self.first_broken or next(iter(chunk.broken), "")
        self.skipped.update(chunk.skipped)
        self.bytes += chunk.bytes
        self.seconds += chunk.seconds

    def state(self) -> dict[str, Any]:
        return {**vars(self), "pairs": {"\t".join(pair): n for pair, n in self.pairs.items()}}

    def documents(self) -> int:
        return sum(found["documents"] for found in self.sources.values())

    def unjudged(self) -> dict[str, int]:
        """Documents to which no filter applies, by language; an empty key for those without a language."""
        found: collections.Counter = collections.Counter()
        for source in self.sources.values():
            found.update(source["unjudged"])
        return dict(sorted(found.items()))


def show_examples(totals: Totals, configs: Mapping[str, FilterConfig]) -> dict[str, list[dict[str, Any]]]:
    """By rule (kept ones under the empty name) some documents, with what was cut or what broke the rule marked."""
    filters, shown = Filters(dict(configs)), {}
    for rule, found in totals.examples.items():
        shown[rule] = []
        for _, example in found:
            config = filters.config_of(example["source"], example["lang"])
            marks = [tuple(span) for span in example["spans"] if span[1] <= len(example["text"])]
            if rule and config is not None:
                marks = evidence.spans(rule, example["text"], config)
            text, marks = evidence.excerpt(example["text"], marks, EXCERPT)
            shown[rule].append({"id": example["id"], "text": text, "spans": marks, "rules": example["rules"]})
    return shown


def make_report(totals: Totals, configs: Mapping[str, FilterConfig], digest: str) -> dict[str, Any]:
    """`report.json`: counts by rule and source, rules broken together, and the rules themselves."""
    by_rule: dict[str, list[int]] = {}
    for found in totals.sources.values():
        for rule, numbers in found["rules"].items():
            by_rule[rule] = [a + b for a, b in zip(by_rule.get(rule, [0, 0, 0]), numbers)]
    replaced: collections.Counter = collections.Counter()
    contaminated: collections.Counter = collections.Counter()
    for found in totals.sources.values():
        replaced.update(found["pii"])
        contaminated.update(found["contamination"])
    documents, kept = totals.documents(), sum(found["kept"] for found in totals.sources.values())

    def named(rules: Mapping[str, list[int]]) -> dict[str, dict[str, int]]:
        return {rule: dict(zip(("any", "only", "first"), numbers)) for rule, numbers in sorted(rules.items())}

    return {
        "documents": documents,
        "kept": kept,
        "dropped": documents - kept,
        "unjudged": sum(totals.unjudged().values()),
        "unjudged_by_lang": totals.unjudged(),
        "broken_lines": totals.broken,
        "skipped": dict(sorted(totals.skipped.items())),
        "bytes": totals.bytes,
        "by_rule": named(by_rule),
        "pii": dict(sorted(replaced.items())),
        "contamination": dict(sorted(contaminated.items())),
        "by_source": {
            name: {
                "documents": found["documents"],
                "kept": found["kept"],
                "dropped": found["documents"] - found["kept"],
                "unjudged": sum(found["unjudged"].values()),
                "by_rule": named(found["rules"]),
            }
            for name, found in sorted(totals.sources.items())
        },
        "together": [[*pair, n] for pair, n in sorted(totals.pairs.items(), key=lambda x: (-x[1], x[0]))],
        "rules": {
            lang: {
                name: {"signal": r.signal, "min": _finite(r.min), "max": _finite(r.max)} for name, r in c.rules.items()
            }
            for lang, c in configs.items()
        },
        "config_hash": digest,
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
