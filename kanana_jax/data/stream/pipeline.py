"""The Grain pipeline: sources → filter → tokens → packed rows → mixture → batches, exact on resume.

The global stream is cut into a fixed number of **lanes** (a config value, whatever the hosts, workers
or devices; see `lanes.py`). Lane `i` supplies rows `[i·B/lanes, (i+1)·B/lanes)` of every global batch; a
process runs the lanes whose rows its devices hold.
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import grain
import numpy as np

from kanana_jax.data.read import summary
from kanana_jax.data.read.sources import PreparedSource
from kanana_jax.data.stream.encode import Encoder
from kanana_jax.data.stream.lanes import (
    COUNTS,
    FILTER_SECONDS,
    Judge,
    LaneDataset,
    Position,
    WorkerLane,
    check_sources,
    lane_documents,
)
from kanana_jax.data.stream.packing import Rows
from kanana_jax.errors import ConfigError, UserError


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """Options for making batches; sources and weights are configured elsewhere.

    Attributes:
      lanes: parts of the global stream; a multiple of the hosts that read different rows, and a divisor
        of the batch's rows.
      workers: `threads` (one prefetch thread per process) or `processes` (one worker process per lane).
      prefetch: number of batches prepared ahead.
      packing: `in_order`: documents end to end, cut where a row ends (conversations and pairs stay whole); `best_fit`:
        documents are cut only if they are longer than a row (arXiv:2404.10830), at the cost of some padding.
      packing_rows: rows that `best_fit` fills at a time in each source and lane; more rows mean less padding.
    """

    lanes: int = 4
    workers: Literal["threads", "processes"] = "threads"
    prefetch: int = 4
    packing: Literal["in_order", "best_fit"] = "in_order"
    packing_rows: int = 64

    def __post_init__(self):
        if self.lanes < 1 or self.prefetch < 1:
            raise ValueError("lanes and prefetch must be at least 1")
        if self.packing_rows < 1:
            raise ValueError("packing_rows must be at least 1")

    @property
    def window_rows(self) -> int:
        """Rows that are packed at a time; 0: documents are packed in order."""
        return self.packing_rows if self.packing == "best_fit" else 0


class _HostDataset(grain.IterDataset):
    """The rows of this process's lanes as batches `[rows, T]`."""

    def __init__(self, lanes: Mapping[int, grain.IterDataset], rows_per_lane: int):
        super().__init__()
        self.lanes, self.rows_per_lane = dict(lanes), rows_per_lane

    def __iter__(self):
        return _HostIterator(self)


class _HostIterator(grain.DatasetIterator):
    def __init__(self, dataset: _HostDataset):
        super().__init__()
        self._rows = dataset.rows_per_lane
        self._lanes = {lane: lane_dataset.__iter__() for lane, lane_dataset in dataset.lanes.items()}

    def __next__(self) -> dict[str, np.ndarray]:
        rows = [next(lane) for lane in self._lanes.values() for _ in range(self._rows)]
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}

    def close(self) -> None:
        super().close()
        for lane in self._lanes.values():
            lane.close()

    def get_state(self) -> Position:
        return {str(lane): iterator.get_state() for lane, iterator in self._lanes.items()}

    def set_state(self, state: Position) -> None:
        for lane, iterator in self._lanes.items():
            if str(lane) not in state:
                raise UserError(
                    f"lane {lane} is not in the saved data position, which has {len(state)} lanes: "
                    "restore the earlier value of data.lanes"
                )
            iterator.set_state(state[str(lane)])


class BatchStream:
    """Endless global batches, as seen by one process.

    Args:
      sources: all prepared sources; their order gives the `source` ids.
      shares: this stage's mixture (from `mixture.normalised`).
      encoder: makes sequences from records.
      judges: the filter of each source.
      rows: the global rows that this process holds, from `parallel.sharding.local_rows`.
      batch_size, seq_len: `B` and `T`.
      start: the final state of an earlier stage, whose positions in the sources are kept.

    Raises:
      ConfigError: lanes that do not divide the batch, or cut through the rows of a process.
      UserError: `start` refers to other documents.
    """

    def __init__(
        self,
        sources: Mapping[str, PreparedSource],
        shares: Mapping[str, float],
        encoder: Encoder,
        judges: Mapping[str, Judge],
        config: PipelineConfig,
        *,
        rows: Sequence[int] | np.ndarray,
        batch_size: int,
        seq_len: int,
        seed: int,
        start: Position | None = None,
    ):
        if batch_size % config.lanes:
            raise ConfigError(f"data.lanes = {config.lanes} must divide the {batch_size} rows of a batch")
        per_lane = batch_size // config.lanes
        wanted = sorted({int(row) // per_lane for row in rows})
        if len(wanted) * per_lane != len(rows):
            raise ConfigError(
                f"a process holds {len(rows)} of the {batch_size} rows, which data.lanes = {config.lanes} cuts "
                "through: make data.lanes a multiple of the number of hosts"
            )
        lanes: dict[int, grain.IterDataset] = {}
        for lane in wanted:
            dataset: grain.IterDataset = LaneDataset(
                sources,
                shares,
                encoder,
                judges,
                lane=lane,
                lanes=config.lanes,
                seq_len=seq_len,
                seed=seed,
                window_rows=config.window_rows,
            )
            if config.workers == "processes":
                dataset = WorkerLane(dataset, config.prefetch * per_lane)
            lanes[lane] = dataset
        host = grain.experimental.ThreadPrefetchIterDataset(
            _HostDataset(lanes, per_lane), prefetch_buffer_size=config.prefetch
        )
        self._iterator, self._sources = iter(host), sources
        self.wait_seconds = self.filter_seconds = 0.0
        if start is not None:
            check_sources(sources, start)
            self.set_state({lane: {"row": 0, "sources": s["sources"]} for lane, s in start.items()})

    def __next__(self) -> Rows[np.ndarray]:
        began = time.perf_counter()
        batch = next(self._iterator)
        self.wait_seconds = time.perf_counter() - began
        self.filter_seconds = float(batch.pop(FILTER_SECONDS).sum())
        return Rows(**batch)

    def get_state(self) -> Position:
        """Positions by lane after the last returned batch; only this process's lanes."""
        return self._iterator.get_state()

    def set_state(self, state: Position) -> None:
        """Raises UserError for a position that refers to other documents."""
        check_sources(self._sources, state)
        self._iterator.set_state(state)

    def close(self) -> None:
        """Ends the prefetch thread and the worker processes."""
        self._iterator.close()


def documents_seen(lanes: Position, sources: Mapping[str, PreparedSource], seed: int) -> dict[str, list[str]]:
    """The texts that training has read, by source and in each lane's order, from the states of all lanes."""
    seen: dict[str, list[str]] = {name: [] for name in sources}
    for lane, state in lanes.items():
        for name, position in state["sources"].items():
            documents, _ = lane_documents(sources[name], int(lane), len(lanes), seed)
            seen[name] += [json.loads(documents[i] or "")["text"] for i in range(position["next"])]
    return seen


def add_rules(totals: dict[str, dict[str, int]], counts: Mapping[str, Any]) -> None:
    """Adds counts by rule (`[any, only, first]` or named) to named ones."""
    for rule, numbers in counts.items():
        named = numbers if isinstance(numbers, Mapping) else dict(zip(("any", "only", "first"), numbers))
        into = totals.setdefault(rule, dict.fromkeys(named, 0))
        for key, n in named.items():
            into[key] += n


def data_report(lanes: Position, sources: Mapping[str, PreparedSource]) -> dict[str, Any]:
    """`data_report.json` from the states of all lanes."""
    report: dict[str, Any] = {"sources": {}, "documents": 0, "kept": 0, "dropped": 0, "unjudged": 0, "by_rule": {}}
    for name, source in sources.items():
        totals: dict[str, Any] = {**dict.fromkeys(COUNTS, 0), "rules": {}}
        epochs = 0.0
        for lane in lanes.values():
            state = lane["sources"].get(name)
            if state is None:
                continue
            for key, value in state["totals"].items():
                if key != "rules":
                    totals[key] += value
            add_rules(totals["rules"], state["totals"]["rules"])
            epochs = max(epochs, state["next"] / state["epoch_documents"])
        report["sources"][name] = {
            "lang": source.lang,
            "documents_total": source.documents("train"),
            **totals,
            "epochs": round(epochs, 4),
            **summary.about(source),
        }
        report["documents"] += totals["documents"]
        report["kept"] += totals["kept"]
        report["unjudged"] += totals["unjudged"]
        add_rules(report["by_rule"], totals["rules"])
    report["dropped"] = report["documents"] - report["kept"]
    return report
