"""One lane of the stream: its documents, their packed rows, its mixture, its exact position.

Lane `i` of `n` reads documents `i::n` of every source. Each source packs rows of its own and the mixture
picks a source for each row, so that weights are shares of tokens and a later stage with other weights
resumes from the exact position in every source. All documents are reached by index: a lane's whole
state is a few integers per source.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from kanana_jax.data.filters import Verdict
from kanana_jax.data.filters.rules import count
from kanana_jax.data.read.record import Record
from kanana_jax.data.read.sources import PreparedSource
from kanana_jax.data.stream import mixture, packing
from kanana_jax.data.stream.best_fit import BestFitPacker
from kanana_jax.data.stream.encode import Encoder, Example, Refused
from kanana_jax.errors import UserError

Judge = Callable[[Record], Verdict]


# Position in one source of one lane: `next` document, the packer's position (`document` and `offset`, of `window`
# where it has one), `epoch_documents`, and `totals` so far.
SourceState = dict[str, Any]
# Position of one lane: `row`, rows taken in this stage, `sources`, the position in each, and `data`, the digest of
# every source's documents, whether read here or not.
LaneState = dict[str, Any]
# The data position of a stage, by lane; a part of every checkpoint.
Position = dict[str, LaneState]
BEGINNING: LaneState = {"row": 0, "sources": {}}
# Counts of a source, besides those by rule; `unjudged`: documents to which no filter applies.
COUNTS = ("documents", "kept", "unjudged", "tokens", "bytes", "rows")
FILTER_SECONDS = "filter_seconds"  # next to a row's arrays: the time spent on filtering its documents


class _Prepared(NamedTuple):
    """A document: its sequences, or None and the rules that it breaks."""

    examples: Sequence[Example] | None
    rules: tuple[str, ...]
    bytes: int
    filter_seconds: float
    judged: bool  # whether any filter applied


class _Prepare:
    """Bytes of a record → `_Prepared`; pure except for the clock; picklable."""

    def __init__(self, encoder: Encoder, judge: Judge):
        self._encoder, self._judge = encoder, judge

    def __call__(self, data: bytes) -> _Prepared:
        record = json.loads(data)
        began = time.perf_counter()
        verdict = self._judge(record)
        seconds = time.perf_counter() - began
        if verdict.rules:
            return _Prepared(None, verdict.rules, 0, seconds, True)
        size, judged = len(verdict.record["text"].encode()), verdict.signals is not None
        made = self._encoder(verdict.record)
        if isinstance(made, Refused):
            return _Prepared(None, (made.reason,), 0, seconds, judged)
        return _Prepared(made, (), size, seconds, judged)


class _SourceRows:
    """Packed rows of one source in one lane; `state()` is exact after every row."""

    def __init__(
        self,
        documents: grain.MapDataset,
        epoch_documents: int,
        packer: packing.Packer | BestFitPacker,
        state: SourceState | None,
    ):
        self._documents, self._epoch, self._packer = documents, epoch_documents, packer
        self._totals: dict[str, Any] = {**dict.fromkeys(COUNTS, 0), "rules": {}}
        self._next = 0
        self.filter_seconds = 0.0
        if state is not None:
            self._totals |= _copy(state["totals"])
            self._next = state["next"]
            # The rest of a window with other rows is skipped: which documents it would have held is unknown.
            if state["document"] is not None and state.get("window") == packer.window:
                self._refill(state["document"], state["offset"])

    def _refill(self, first: int, offset: int) -> None:
        """Reads the packer's contents again: documents `[first, next)`, without counting them twice."""
        for index in range(first, self._next):
            examples = self._document(index).examples
            if examples is not None:
                self._packer.add(index, examples, offset if index == first else 0)

    def _document(self, index: int) -> _Prepared:
        document = self._documents[index]
        assert document is not None  # nothing is filtered out of the dataset itself
        return document

    def next_row(self) -> packing.Rows[np.ndarray]:
        dropped_in_a_row = 0
        while not self._packer.ready():
            document = self._document(self._next)
            self.filter_seconds += document.filter_seconds
            totals = self._totals
            totals["documents"] += 1
            if document.examples is None:
                count(totals["rules"], document.rules)
                dropped_in_a_row += 1
                if dropped_in_a_row >= max(2 * self._epoch, 1000):
                    raise UserError(
                        "every document of a source is dropped (the last one for: "
                        f"{', '.join(document.rules)}): loosen the filter's thresholds, or fix the records"
                    )
            else:
                dropped_in_a_row = 0
                totals["kept"] += 1
                totals["bytes"] += document.bytes
                totals["unjudged"] += not document.judged
                self._packer.add(self._next, document.examples)
            self._next += 1
        row = self._packer.take()
        self._totals["rows"] += 1
        self._totals["tokens"] += self._packer.taken
        return row

    def state(self) -> SourceState:
        position = self._packer.position()
        return {
            "next": self._next,
            "document": None if position is None else position[0],
            "offset": 0 if position is None else position[1],
            **({} if self._packer.window is None else {"window": self._packer.window}),
            "epoch_documents": self._epoch,
            "totals": _copy(self._totals),
        }


def _copy(totals: dict[str, Any]) -> dict[str, Any]:
    return {**totals, "rules": {rule: list(numbers) for rule, numbers in totals["rules"].items()}}


class LaneDataset(grain.IterDataset):
    """One lane as a Grain dataset of rows (dicts of arrays `[T]` and the source's index).

    Args:
      window_rows: rows of a window of best-fit packing; 0: documents are packed in their order.
    """

    def __init__(
        self,
        sources: Mapping[str, PreparedSource],
        shares: Mapping[str, float],
        encoder: Encoder,
        judges: Mapping[str, Judge],
        *,
        lane: int,
        lanes: int,
        seq_len: int,
        seed: int,
        window_rows: int = 0,
    ):
        super().__init__()
        self.sources, self.shares, self.window_rows = dict(sources), dict(shares), window_rows
        self.encoder, self.judges = encoder, dict(judges)
        self.lane, self.lanes, self.seq_len, self.shuffle_seed = lane, lanes, seq_len, seed

    def __iter__(self) -> "LaneIterator":
        return LaneIterator(self)

    def rows_of(self, name: str, state: SourceState | None) -> _SourceRows:
        documents, epoch = lane_documents(self.sources[name], self.lane, self.lanes, self.shuffle_seed)
        if state is not None and state["epoch_documents"] != epoch:
            raise UserError(
                f"source '{name}' has {epoch} documents in a lane, but had {state['epoch_documents']} when its "
                "position was saved: restore its files and data.lanes, or use another workdir"
            )
        prepare, whole = _Prepare(self.encoder, self.judges[name]), self.encoder.whole
        if self.window_rows:
            packer = BestFitPacker(self.seq_len, whole, self.window_rows)
        else:
            packer = packing.Packer(self.seq_len, whole)
        return _SourceRows(documents.map(prepare), epoch, packer, state)


def check_sources(sources: Mapping[str, PreparedSource], position: Position) -> None:
    """Refuses a position in documents other than the sources': some would be read twice, others never.

    Raises:
      UserError: names the source.
    """
    for lane in position.values():
        for name, known in lane.get("data", {}).items():
            now = sources[name].digest if name in sources else ""
            if known and now and known != now:
                raise UserError(
                    f"source '{name}' has other documents, or another order, than when this workdir's position "
                    f"in it was saved: restore its files (undo changes, additions, removals and renames), or "
                    "use another workdir"
                )


def lane_documents(source: PreparedSource, lane: int, lanes: int, seed: int) -> tuple[grain.MapDataset, int]:
    """A lane's endless sequence of a source's records (bytes), reshuffled each epoch, and an epoch's length.

    If a source has fewer documents than lanes, some lanes read the same one.
    """
    split = source.split("train")
    documents = grain.MapDataset.source(split)[lane % len(split) :: lanes]
    own_seed = (seed * 1_000_003 + sum(source.name.encode()) * 7919 + lane) % 2**31
    return documents.seed(own_seed).shuffle().repeat(), len(documents)


class LaneIterator(grain.DatasetIterator):
    """Draws rows by the mixture. Its state is the row number and, by source, `_SourceRows.state`."""

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
        seconds = np.array(rows.filter_seconds - before, np.float64)
        return {**row._replace(source=np.array(self._ids[name], np.int32))._asdict(), FILTER_SECONDS: seconds}

    def get_state(self) -> LaneState:
        sources = {**self._idle, **{n: r.state() for n, r in self._rows.items()}}
        data = {name: source.digest for name, source in sorted(self._dataset.sources.items())}
        return {"row": self._row, "sources": dict(sorted(sources.items())), "data": data}

    def set_state(self, state: LaneState) -> None:
        self._row = state["row"]
        self._rows: dict[str, _SourceRows] = {}
        self._idle: dict[str, SourceState] = dict(state["sources"])


class WorkerLane(grain.IterDataset):
    """A lane in its own worker process (one worker per lane keeps the order).

    Rows come with the lane's state, so positions are recorded in the same way whoever made the rows, and a
    run may resume with threads where it stopped with processes.
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
        self._worker: grain.DatasetIterator | None = None
        self._state = BEGINNING

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

    def get_state(self) -> LaneState:
        return self._state

    def set_state(self, state: LaneState) -> None:
        if self._worker is not None:
            self._worker.close()
        self._state, self._worker = state, None


class _RowsWithState(grain.IterDataset):
    """The dataset that a worker process runs: a lane from a given position, each row with the state after it."""

    def __init__(self, lane: LaneDataset, start: LaneState):
        super().__init__()
        self.lane, self.start = lane, start

    def __iter__(self):
        return _RowsWithStateIterator(self)


class _RowsWithStateIterator(grain.DatasetIterator):
    def __init__(self, dataset: _RowsWithState):
        super().__init__()
        self._lane = LaneIterator(dataset.lane)
        self._lane.set_state(dataset.start)

    def __next__(self) -> tuple[dict[str, np.ndarray], LaneState]:
        row = next(self._lane)
        return row, self._lane.get_state()

    def get_state(self) -> LaneState:
        return self._lane.get_state()

    def set_state(self, state: LaneState) -> None:
        self._lane.set_state(state)
