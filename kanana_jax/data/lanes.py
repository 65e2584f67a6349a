"""One lane of the stream: its documents, their packed rows, its mixture, its exact position.

Lane `i` of `n` reads documents `i::n` of every source. Each source packs rows of its own and the mixture
picks a source for each row, so that weights are shares of tokens and a later stage with other weights
goes on from the exact position in every source. All documents are reached by index: a lane's whole
state is a few integers a source.
"""

import json
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from kanana_jax.config import ConfigError, UserError
from kanana_jax.data import mixture, packing
from kanana_jax.data.filters import Filter
from kanana_jax.data.sources import PreparedSource
from kanana_jax.data.tokenizer import Tokenizer, encode_document

State = dict[str, Any]
BEGINNING: State = {"row": 0, "sources": {}}


class _Prepare:
    """Bytes of a record → its tokens or the reason why it is dropped; pure, picklable."""

    def __init__(self, tokenizer: Tokenizer, keep: Filter):
        self._tokenizer, self._keep = tokenizer, keep

    def __call__(self, data: bytes) -> tuple[np.ndarray | None, str | None, int]:
        record = json.loads(data)
        reason = self._keep(record)
        if reason is not None:
            return None, reason, 0
        return encode_document(self._tokenizer, record["text"]), None, len(record["text"].encode())


class _SourceRows:
    """Packed rows of one source in one lane; `state()` is exact after every row."""

    def __init__(self, documents: grain.MapDataset, epoch_documents: int, seq_len: int, state: State | None):
        self._documents, self._epoch, self._packer = documents, epoch_documents, packing.Packer(seq_len)
        self._totals = {"documents": 0, "kept": 0, "dropped": {}, "tokens": 0, "bytes": 0, "rows": 0}
        self._next = 0
        if state is not None:
            self._totals = {**state["totals"], "dropped": dict(state["totals"]["dropped"])}
            self._next = state["next"]
            if state["document"] is not None:
                self._refill(state["document"], state["offset"])

    def _refill(self, first: int, offset: int) -> None:
        """Reads again what the packer held: documents `[first, next)`, without counting them twice."""
        for index in range(first, self._next):
            tokens, _, _ = self._documents[index]
            if tokens is not None:
                self._packer.add(index, tokens, offset if index == first else 0)

    def next_row(self) -> packing.Row:
        dropped_in_a_row = 0
        while not self._packer.ready():
            tokens, reason, size = self._documents[self._next]
            totals = self._totals
            totals["documents"] += 1
            if tokens is None:
                totals["dropped"][reason] = totals["dropped"].get(reason, 0) + 1
                dropped_in_a_row += 1
                if dropped_in_a_row >= max(2 * self._epoch, 1000):
                    raise UserError(
                        f"the filter drops every document of a source (last reason: {reason}): loosen its thresholds"
                    )
            else:
                dropped_in_a_row = 0
                totals["kept"] += 1
                totals["bytes"] += size
                self._packer.add(self._next, tokens)
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
            "totals": {**self._totals, "dropped": dict(self._totals["dropped"])},
        }


class LaneDataset(grain.IterDataset):
    """One lane as a Grain dataset of rows (dicts of arrays `[T]` and the source's index)."""

    def __init__(
        self,
        sources: Mapping[str, PreparedSource],
        shares: Mapping[str, float],
        tokenizer: Tokenizer,
        keep: Filter,
        *,
        lane: int,
        lanes: int,
        seq_len: int,
        seed: int,
    ):
        super().__init__()
        self.sources, self.shares = dict(sources), dict(shares)
        self.tokenizer, self.keep = tokenizer, keep
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
        return _SourceRows(documents.map(_Prepare(self.tokenizer, self.keep)), epoch, self.seq_len, state)


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
        row = self._rows[name].next_row()
        self._row += 1
        return {**row._asdict(), "source": np.int32(self._ids[name])}

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
