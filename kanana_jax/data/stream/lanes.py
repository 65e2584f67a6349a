"""One lane of the stream: its documents, their packed rows, its mixture, its exact position.

Lane `i` of `n` reads documents `i::n` of every source. Each source packs rows of its own and the mixture
picks a source for each row, so that weights are shares of tokens and a later stage with other weights
goes on from the exact position in every source. All documents are reached by index: a lane's whole
state is a few integers a source.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from kanana_jax.data.filters import Verdict
from kanana_jax.data.filters.rules import count
from kanana_jax.data.read.record import Record
from kanana_jax.data.read.sources import PreparedSource
from kanana_jax.data.stream import mixture, packing
from kanana_jax.data.tokens.tokenizer import Tokenizer, encode_document
from kanana_jax.errors import ConfigError, UserError

State = dict[str, Any]
Judge = Callable[[Record], Verdict]
BEGINNING: State = {"row": 0, "sources": {}}
FILTER_SECONDS = "filter_seconds"  # beside a row's arrays: what filtering its documents took


class _Prepared(NamedTuple):
    """A document: its tokens, or None and the rules that it breaks."""

    tokens: np.ndarray | None
    rules: tuple[str, ...]
    bytes: int
    filter_seconds: float


class _Prepare:
    """Bytes of a record → `_Prepared`; pure but for the clock, picklable."""

    def __init__(self, tokenizer: Tokenizer, judge: Judge):
        self._tokenizer, self._judge = tokenizer, judge

    def __call__(self, data: bytes) -> _Prepared:
        record = json.loads(data)
        began = time.perf_counter()
        verdict = self._judge(record)
        seconds = time.perf_counter() - began
        if verdict.rules:
            return _Prepared(None, verdict.rules, 0, seconds)
        text = verdict.record["text"]
        return _Prepared(encode_document(self._tokenizer, text), (), len(text.encode()), seconds)


class _SourceRows:
    """Packed rows of one source in one lane; `state()` is exact after every row."""

    def __init__(self, documents: grain.MapDataset, epoch_documents: int, seq_len: int, state: State | None):
        self._documents, self._epoch, self._packer = documents, epoch_documents, packing.Packer(seq_len)
        self._totals = {"documents": 0, "kept": 0, "rules": {}, "tokens": 0, "bytes": 0, "rows": 0}
        self._next = 0
        self.filter_seconds = 0.0
        if state is not None:
            self._totals = _copy(state["totals"])
            self._next = state["next"]
            if state["document"] is not None:
                self._refill(state["document"], state["offset"])

    def _refill(self, first: int, offset: int) -> None:
        """Reads again what the packer held: documents `[first, next)`, without counting them twice."""
        for index in range(first, self._next):
            tokens = self._documents[index].tokens
            if tokens is not None:
                self._packer.add(index, tokens, offset if index == first else 0)

    def next_row(self) -> packing.Row:
        dropped_in_a_row = 0
        while not self._packer.ready():
            document = self._documents[self._next]
            self.filter_seconds += document.filter_seconds
            totals = self._totals
            totals["documents"] += 1
            if document.tokens is None:
                count(totals["rules"], document.rules)
                dropped_in_a_row += 1
                if dropped_in_a_row >= max(2 * self._epoch, 1000):
                    raise UserError(
                        "the filter drops every document of a source (the last one broke: "
                        f"{', '.join(document.rules)}): loosen its thresholds"
                    )
            else:
                dropped_in_a_row = 0
                totals["kept"] += 1
                totals["bytes"] += document.bytes
                self._packer.add(self._next, document.tokens)
            self._next += 1
        row = self._packer.take()
        self._totals["rows"] += 1
        self._totals["tokens"] += int(row.weights.sum())
        return row

    def state(self) -> State:
        position = self._packer.position()
        return {
            "next": self._next,
            "document": None if position is None else position[0],
            "offset": 0 if position is None else position[1],
            "epoch_documents": self._epoch,
            "totals": _copy(self._totals),
        }


def _copy(totals: State) -> State:
    return {**totals, "rules": {rule: list(numbers) for rule, numbers in totals["rules"].items()}}


class LaneDataset(grain.IterDataset):
    """One lane as a Grain dataset of rows (dicts of arrays `[T]` and the source's index)."""

    def __init__(
        self,
        sources: Mapping[str, PreparedSource],
        shares: Mapping[str, float],
        tokenizer: Tokenizer,
        judges: Mapping[str, Judge],
        *,
        lane: int,
        lanes: int,
        seq_len: int,
        seed: int,
    ):
        super().__init__()
        self.sources, self.shares = dict(sources), dict(shares)
        self.tokenizer, self.judges = tokenizer, dict(judges)
        self.lane, self.lanes, self.seq_len, self.seed = lane, lanes, seq_len, seed

    def __iter__(self) -> "LaneIterator":
        return LaneIterator(self)

    def rows_of(self, name: str, state: State | None) -> _SourceRows:
        source = self.sources[name]
        total = source.documents("train")
        if total < self.lanes:
            raise ConfigError(
                f"source '{name}' has {total} documents, fewer than the {self.lanes} lanes: lower data.lanes"
            )
        documents, epoch = lane_documents(source, self.lane, self.lanes, self.seed)
        if state is not None and state["epoch_documents"] != epoch:
            raise UserError(
                f"source '{name}' has {epoch} documents in a lane, but had {state['epoch_documents']} when its "
                "position was saved: bring its files and data.lanes back as they were, or use another workdir"
            )
        prepare = _Prepare(self.tokenizer, self.judges[name])
        return _SourceRows(documents.map(prepare), epoch, self.seq_len, state)


def lane_documents(source: PreparedSource, lane: int, lanes: int, seed: int) -> tuple[grain.MapDataset, int]:
    """A lane's endless sequence of a source's records (bytes), shuffled anew each epoch, and an epoch's length."""
    documents = grain.MapDataset.source(source.split("train"))[lane::lanes]
    own_seed = (seed * 1_000_003 + sum(source.name.encode()) * 7919 + lane) % 2**31
    return documents.seed(own_seed).shuffle().repeat(), len(documents)


class LaneIterator(grain.DatasetIterator):
    """Draws rows by the mixture. State: the row number and, by source, `_SourceRows.state`."""

    def __init__(self, dataset: LaneDataset):
        super().__init__()
        self._dataset = dataset
        self._names = list(dataset.shares)
        self._ids = {name: i for i, name in enumerate(dataset.sources)}
        self._shares = list(dataset.shares.values())
        self.set_state(BEGINNING)

    def __next__(self) -> dict[str, np.ndarray]:
        number = self._row * self._dataset.lanes + self._dataset.lane
        name = self._names[int(mixture.source_of_row(number, self._shares))]
        if name not in self._rows:
            self._rows[name] = self._dataset.rows_of(name, self._idle.pop(name, None))
        rows = self._rows[name]
        before = rows.filter_seconds
        row = rows.next_row()
        self._row += 1
        seconds = np.float64(rows.filter_seconds - before)
        return {**row._asdict(), "source": np.int32(self._ids[name]), FILTER_SECONDS: seconds}

    def get_state(self) -> State:
        return {"row": self._row, "sources": {**self._idle, **{n: r.state() for n, r in self._rows.items()}}}

    def set_state(self, state: State) -> None:
        self._row = state["row"]
        self._rows: dict[str, _SourceRows] = {}
        self._idle: dict[str, State] = dict(state["sources"])


class WorkerLane(grain.IterDataset):
    """A lane in a worker process of its own (one worker a lane keeps the order).

    Rows come with the lane's state, so that positions are written alike whoever made the rows, and a
    run may go on with threads where it stopped with processes.
    """

    def __init__(self, lane: LaneDataset, buffer: int):
        super().__init__()
        self.lane, self.buffer = lane, buffer

    def __iter__(self):
        return _WorkerLaneIterator(self)


class _WorkerLaneIterator(grain.DatasetIterator):
    def __init__(self, dataset: WorkerLane):
        super().__init__()
        self._dataset = dataset
        self.set_state(BEGINNING)

    def __next__(self) -> dict[str, np.ndarray]:
        if self._worker is None:
            if not flags.FLAGS.is_parsed():  # Grain's worker reads a flag of its own
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=self._dataset.buffer)
            self._worker = iter(_RowsWithState(self._dataset.lane, self._state).mp_prefetch(options))
        row, self._state = next(self._worker)
        return row

    def close(self) -> None:
        super().close()
        if self._worker is not None:
            self._worker.close()

    def get_state(self) -> State:
        return self._state

    def set_state(self, state: State) -> None:
        if getattr(self, "_worker", None) is not None:
            self._worker.close()
        self._state, self._worker = state, None


class _RowsWithState(grain.IterDataset):
    """What a worker process runs: a lane from a given position, each row beside the state after it."""

    def __init__(self, lane: LaneDataset, start: State):
        super().__init__()
        self.lane, self.start = lane, start

    def __iter__(self):
        return _RowsWithStateIterator(self)


class _RowsWithStateIterator(grain.DatasetIterator):
    def __init__(self, dataset: _RowsWithState):
        super().__init__()
        self._lane = LaneIterator(dataset.lane)
        self._lane.set_state(dataset.start)

    def __next__(self) -> tuple[dict[str, np.ndarray], State]:
        row = next(self._lane)
        return row, self._lane.get_state()

    def get_state(self) -> State:
        return self._lane.get_state()

    def set_state(self, state: State) -> None:
        self._lane.set_state(state)
