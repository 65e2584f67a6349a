"""Answers ordered before they are needed: the look-ahead of a sampling stage.

At step s, the prompts of steps s … s + k are known (`Ahead`), and those not yet ordered are ordered with the present
parameters (`Orders`). Step s thus gets answers by the parameters of step max(1, s − k): staleness never exceeds k,
nothing is dropped, and everything comes in order. On one device, a thread writes while the step trains; on several,
whose collectives must start in the same order everywhere, an order is carried out at once.
"""

import collections
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kanana_jax.data.stream.lanes import Position
from kanana_jax.models.transformer import Params
from kanana_jax.training.step import Batch
from kanana_jax.training.task import Stream

Result = TypeVar("Result")


class Ahead:
    """A stream that shows batches k steps before their turn: the batch of a step, and the k after it.

    Its position is that of the step's own batch.
    """

    def __init__(self, stream: Stream, k: int):
        self._stream, self._k = stream, k
        self._seen: collections.deque[tuple[Batch, Position]] = collections.deque()
        self._state = stream.get_state()
        self.wait_seconds = self.filter_seconds = 0.0

    def __next__(self) -> tuple[Batch, ...]:
        self.wait_seconds = self.filter_seconds = 0.0
        while len(self._seen) <= self._k:
            batch = next(self._stream)
            self.wait_seconds += self._stream.wait_seconds
            self.filter_seconds += self._stream.filter_seconds
            self._seen.append((batch, self._stream.get_state()))
        batches = tuple(batch for batch, _ in self._seen)
        _, self._state = self._seen.popleft()
        return batches

    def get_state(self) -> Position:
        return self._state

    def set_state(self, state: Position) -> None:
        self._seen.clear()
        self._stream.set_state(state)
        self._state = state

    def close(self) -> None:
        self._stream.close()


class Taken(NamedTuple, Generic[Result]):
    """The delivery that a step takes.

    Attributes:
      result: the result of the step's order.
      age: updates between the parameters that made it and the present ones.
      waited: seconds that the step waited for it while nothing trained.
    """

    result: Result
    age: int
    waited: float


class Orders(Generic[Result]):
    """The orders not yet taken.

    Args:
      make: `(params, asked, key) → result`, on the current mesh.
      k: most steps between an order and its turn.
      steps: the stage's number of steps, beyond which nothing is ordered.
      dtype: dtype in which parameters are kept for an early order: that of sampling.
    """

    def __init__(self, make: Callable[[Params, Any, jax.Array], Result], mesh: Mesh, k: int, steps: int, dtype: str):
        self._make, self._mesh, self._k, self._steps, self._dtype = make, mesh, k, steps, dtype
        alone = mesh.size == 1 and jax.process_count() == 1
        self._thread = futures.ThreadPoolExecutor(1, "sampler") if k and alone else None
        self._open: dict[int, tuple[int, futures.Future[Result]]] = {}

    def take(
        self, trained: Params, params: Callable[[], Params], asked: Sequence[Any], step: int, key: jax.Array
    ) -> Taken[Result]:
        """The result of a step.

        Args:
          trained: arrays that are ready once the update before this step has ended.
          params: the present parameters; called only when something is ordered.
          asked: the prompts of this step and of those after it.
          key: the key of this step; an order for the j-th step after it uses `fold_in(key, j)`.
        """
        wanted = [(j, each) for j, each in enumerate(asked) if step + j not in self._open and step + j <= self._steps]
        began = None
        if wanted and self._thread is None:  # the devices sample now instead of training
            began = _after(trained)
        if wanted:
            kept = params() if not self._k else self._copied(params())
            drawn = np.asarray(jax.random.key_data(key))  # an array belongs to a mesh, and this one is the step's
            for j, each in wanted:
                self._open[step + j] = (step, self._order(kept, each, drawn, j))
        ordered, found = self._open.pop(step)
        if began is None and not found.done():
            began = _after(trained)
        result = found.result()
        return Taken(result, step - ordered, 0.0 if began is None else time.perf_counter() - began)

    def _copied(self, params: Params) -> Params:
        """A copy of the parameters that outlives the step, which donates its own."""
        return jax.tree.map(lambda x: jnp.array(x, self._dtype, copy=True), params)

    def _order(self, params: Params, asked: Any, drawn: np.ndarray, j: int) -> futures.Future[Result]:
        def make() -> Result:
            with jax.set_mesh(self._mesh):
                return self._make(params, asked, jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(drawn)), j))

        if self._thread is not None:
            return self._thread.submit(make)
        done: futures.Future[Result] = futures.Future()
        done.set_result(make())
        return done

    def close(self) -> None:
        """Waits for the order in progress, and drops the others."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)


def _after(trained: Params) -> float:
    """The time when these arrays are ready."""
    jax.block_until_ready(trained)
    return time.perf_counter()
