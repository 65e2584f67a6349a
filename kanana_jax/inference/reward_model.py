"""A loaded reward model: answers in, rewards out."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kanana_jax.data.stream.encode import ends_at
from kanana_jax.data.tokens import chat
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.inference.prefix import padded, rounded
from kanana_jax.inference.session import Session
from kanana_jax.interop import model_folder
from kanana_jax.models import reward
from kanana_jax.models.architecture import DType
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import RULES, local_rows, put_batch, replicated


class Asked(Protocol):
    """A prompt in the form given to a model: int32 ids, by the chat template, up to the answer."""

    @property
    def ids(self) -> np.ndarray: ...


class _Rows(NamedTuple):
    """See `models.model.Packed`."""

    inputs: jax.Array
    positions: jax.Array
    segment_ids: jax.Array


@dataclasses.dataclass(frozen=True)
class RewardModel:
    """A model with its head, which scores answers at the token that ends them.

    Attributes:
      params: parameters, with the head under `reward.HEAD`.
      batch_size: least number of answers per forward pass, rounded up to a multiple of the mesh's row shards.
      one_width: whether all passes of a call are padded to its longest, so that only one program is compiled.
    """

    model: Model
    params: Params
    tokenizer: Tokenizer
    mesh: Mesh
    batch_size: int = 16
    one_width: bool = False

    @staticmethod
    def load(path: str, dtype: DType = "float32", devices: list[jax.Device] | None = None) -> "RewardModel":
        """Loads a reward model from its folder or a stage's.

        Raises:
          UserError: the folder has no reward model, or see `Session.load`.
        """
        head = model_folder.open_weights(model_folder.find(path)).head()[0]  # first, since it is quick to read
        session = Session.load(path, dtype, devices)
        params = {**session.params, **reward.on_mesh(head.astype(session.params["embedding"].dtype), session.mesh)}
        return RewardModel(session.model, params, session.tokenizer, session.mesh)

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuses a policy whose tokenizer differs from this model's.

        Raises:
          ConfigError: the tokenizers differ.
        """
        own, other = self.tokenizer.fingerprint, tokenizer.fingerprint
        if own != other:
            raise ConfigError(
                f"the reward model's tokenizer ({own[:12]}…) differs from the policy's ({other[:12]}…): train one from "
                "the policy's own base"
            )

    @functools.cached_property
    def end(self) -> int:
        """The token that ends an answer in this model's chat template."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        ids, weights = chat.encode_conversation(self.tokenizer, turns, first=1)
        return int(ids[ends_at(weights) - 1])

    def __call__(self, prompts: Sequence[Asked], texts: Sequence[str]) -> np.ndarray:
        """The rewards of answers, float64 `[N]`: text `i` answers prompt `i`."""
        answers = self.tokenizer.encode_batch(texts)
        sequences = [np.concatenate([p.ids, own, [self.end]]) for p, own in zip(prompts, answers, strict=True)]
        return self.of_tokens(sequences)

    def of_tokens(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """The head's value at the last token of each sequence, float64 `[N]`.

        Raises:
          UserError: a sequence is longer than the model's rows.
        """
        longest, most = max(map(len, sequences), default=0), self.model.architecture.max_seq_len
        if longest > most:
            raise UserError(
                f"a prompt with its answer has {longest} tokens, beyond the reward model's {most}: shorten them"
            )
        size = rows_at_once(self.mesh, self.batch_size)
        order = np.argsort([-len(sequence) for sequence in sequences], kind="stable")
        found, mine = np.empty(len(sequences)), local_rows(self.mesh, size)
        for start in range(0, len(order), size):
            places = order[start : start + size]
            lengths = np.zeros(size, np.int32)
            lengths[: len(places)] = [len(sequences[i]) for i in places]
            width = min(rounded(longest if self.one_width else int(lengths.max())), most)
            inputs = padded([sequences[i] for i in places], size, width)
            batch = put_batch(self.mesh, mine, size, (inputs[mine], lengths[mine]))
            with jax.set_mesh(self.mesh):
                values = _last_scores(self.params, *batch, model=self.model, mesh=self.mesh)
            found[places] = np.asarray(values, np.float64)[: len(places)]
        return found


def rows_at_once(mesh: Mesh, batch_size: int) -> int:
    """Rows of a forward pass: at least `batch_size`, and a multiple of the mesh's row shards."""
    parts = int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    return -(-batch_size // parts) * parts


def passes(model: Model, mesh: Mesh, batch_size: int) -> jax.stages.Wrapped:
    """The forward passes of `of_tokens` over many sequences as one program, to measure their cost.

    Returns:
      `(params, inputs [N, T], lengths [N]) → rewards [N / B, B]`, jitted, with B rows at once; N is a multiple of B.
    """
    size = rows_at_once(mesh, batch_size)

    def apart(x: jax.Array) -> jax.Array:
        """`[N, …]` as `[N / B, B, …]`, where a device keeps its rows."""
        return x.reshape(size, -1, *x.shape[1:]).swapaxes(0, 1)

    def run(params: Params, inputs_NT: jax.Array, lengths_N: jax.Array) -> jax.Array:
        one = functools.partial(_last_scores, params, model=model, mesh=mesh)
        return jax.lax.map(lambda rows: one(*rows), (apart(inputs_NT), apart(lengths_N)))

    return jax.jit(run)


@functools.partial(jax.jit, static_argnames=("model", "mesh"))
def _last_scores(params: Params, inputs_BT: jax.Array, lengths_B: jax.Array, *, model: Model, mesh: Mesh) -> jax.Array:
    positions_BT = jnp.broadcast_to(jnp.arange(inputs_BT.shape[1]), inputs_BT.shape)
    segments_BT = (positions_BT < lengths_B[:, None]).astype(jnp.int32)
    scores_BT = reward.scores(model, params, _Rows(inputs_BT, positions_BT, segments_BT))
    last_B = jnp.take_along_axis(scores_BT, jnp.maximum(lengths_B - 1, 0)[:, None], axis=1)[:, 0]
    return jax.lax.with_sharding_constraint(last_B, replicated(mesh))
