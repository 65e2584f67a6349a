"""A loaded embedding model: texts in, unit vectors out."""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kanana_jax.data.tokens.instructed import Instructed, of_ids
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.inference.prefix import padded, rounded
from kanana_jax.inference.session import Session
from kanana_jax.interop import model_folder
from kanana_jax.losses.contrastive import unit
from kanana_jax.models import embedding
from kanana_jax.models.architecture import DType
from kanana_jax.models.embedding import Embedding, Pooling
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import RULES, local_rows, put_batch, replicated

log = logging.getLogger("kanana")


class Vectors(NamedTuple):
    """Embedding vectors of a batch of texts.

    Attributes:
      values: float32 `[N, D]`, each row of unit length.
      left_out: int `[N]`, the number of tokens cut from the end of each text because it exceeds the length limit.
    """

    values: np.ndarray
    left_out: np.ndarray

    def warned(self) -> np.ndarray:
        """The values; logs how many texts were cut, if any."""
        warn_cut(self.left_out)
        return self.values


def warn_cut(left_out: np.ndarray) -> None:
    """Logs how many texts were too long for the model: their vectors represent only the beginning."""
    if cut := int((left_out > 0).sum()):
        log.warning(
            "%d of %d texts are longer than the model's limit for a text: their vectors represent only the beginning",
            cut,
            len(left_out),
        )


class _Rows(NamedTuple):
    """Inputs of the forward pass; see `models.embedding.Weighted`."""

    inputs: jax.Array
    positions: jax.Array
    segment_ids: jax.Array
    weights: jax.Array


@dataclasses.dataclass(frozen=True)
class Embedder:
    """A model that maps texts to vectors.

    Attributes:
      about: attention, pooling, instructions, length limit and dimension.
      batch_tokens: maximum number of tokens per forward pass; a single longer row is still run.
    """

    model: Model
    params: Params
    tokenizer: Tokenizer
    mesh: Mesh
    about: Embedding
    batch_tokens: int = 16_384

    @staticmethod
    def load(
        path: str,
        dtype: DType = "float32",
        devices: list[jax.Device] | None = None,
        *,
        causal: bool | None = None,
        pooling: Pooling | None = None,
        longest: int = 0,
        dim: int = 0,
    ) -> "Embedder":
        """Loads an embedder from a model, stage or Hugging Face folder.

        Options that are not given come from the folder (`ModelFolder.embedding`). A model that was not trained to embed
        keeps its causal attention, and its final hidden states are mean-pooled.

        Args:
          causal: whether attention is causal; None: as the folder says.
          pooling: how hidden states are pooled; None: as the folder says.
          longest: maximum number of tokens per text, including its instruction; 0: the limit of training if the folder
            records one, else the model's context length.
          dim: number of leading dimensions to keep (Matryoshka); 0: all.

        Raises:
          ConfigError: `longest` or `dim` exceeds what the model has.
          UserError: see `Session.load`.
        """
        found = model_folder.find(path)
        known, most = found.embedding or Embedding(causal=True), found.architecture.max_seq_len
        if longest > most:
            raise ConfigError(f"--max-tokens {longest} exceeds the {most} tokens that the model can read: lower it")
        if not 0 <= dim <= found.architecture.embed_dim:
            raise ConfigError(f"--dim {dim}: the model's vectors have {found.architecture.embed_dim} dimensions")
        about = dataclasses.replace(
            known,
            causal=known.causal if causal is None else causal,
            pooling=pooling or known.pooling,
            longest=longest or min(known.longest or most, most),
            dims=(dim,) if dim else (),
        )
        session = Session.load(path, dtype, devices, writes=False)
        model = dataclasses.replace(session.model, causal=about.causal)
        return Embedder(model, session.params, session.tokenizer, session.mesh, about)

    @property
    def dim(self) -> int:
        """Dimension of a vector."""
        return self.about.dims[0] if self.about.dims else self.model.architecture.embed_dim

    def __call__(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Embeds texts.

        Args:
          instruction: text prepended to each text: `about.instruction` for queries. Default: the instruction for
            documents, `about.document`.

        Raises:
          UserError: a text has no tokens, or the instruction leaves no room for a text.
        """
        read = self.read(texts, self.about.document if instruction is None else instruction)
        for place, (text, one) in enumerate(zip(texts, read)):
            if not text.strip() or not one.counted:
                raise UserError(f"text {place + 1} of {len(texts)} is empty and has no vector: leave it out")
        return Vectors(self.vectors(read), np.array([one.left_out for one in read], np.int64))

    def read(self, texts: Sequence[str], instruction: str = "") -> list[Instructed]:
        """Tokenizes texts, each preceded by an instruction.

        Raises:
          UserError: the instruction leaves no room for a text.
        """
        alone = self.tokenizer.encode(instruction) if instruction else None
        if alone is not None:
            around = len(self.tokenizer.prefix) + len(self.tokenizer.suffix)
            if len(alone) + around >= self.about.longest:
                raise UserError(
                    f"the instruction has {len(alone)} tokens, and {self.about.longest} is the limit for instruction "
                    "and text together: shorten it, or raise --max-tokens"
                )
        encoded = self.tokenizer.encode_batch([instruction + text for text in texts])
        read = [of_ids(self.tokenizer, ids, alone, self.about.longest) for ids in encoded]
        if not self.about.counts_instruction:
            return read
        return [one._replace(skipped=0) if one.counted else one for one in read]

    def vectors(self, read: Sequence[Instructed]) -> np.ndarray:
        """Embeds tokenized, non-empty texts: float32 `[N, D]`, unit rows. Texts of similar length share a batch."""
        values = np.empty((len(read), self.dim), np.float32)
        order = np.argsort([-len(one.ids) for one in read], kind="stable")
        start = 0
        while start < len(order):
            width = min(_width(len(read[order[start]].ids)), self.model.architecture.max_seq_len)
            size = self._rows_of(width, len(order) - start)
            places = order[start : start + size]
            values[places] = self._vectors([read[i] for i in places], size, width)
            start += size
        return values

    def _rows_of(self, width: int, texts: int) -> int:
        """Number of rows in the next forward pass when `texts` remain: a multiple of the mesh's batch shards.

        Small batches, such as a single question, are sized to a power of two per shard, so that few programs are
        compiled: rounded up if less than a quarter of the rows would be empty, else rounded down, and the remaining
        texts form the next batch.
        """
        parts = int(np.prod([self.mesh.shape[axis] for axis in RULES["batch"]]))
        needed = -(-texts // parts)
        power = 1 << (needed - 1).bit_length()
        few = power if 4 * needed > 3 * power or power == needed else power // 2
        return min(max(self.batch_tokens // width // parts, 1), few) * parts

    def _vectors(self, read: list[Instructed], size: int, width: int) -> np.ndarray:
        bounds = np.zeros((size, 2), np.int32)
        bounds[: len(read)] = [(one.skipped, len(one.ids)) for one in read]
        inputs, mine = padded([one.ids for one in read], size, width), local_rows(self.mesh, size)
        batch = put_batch(self.mesh, mine, size, (inputs[mine], bounds[mine, 0], bounds[mine, 1]))
        with jax.set_mesh(self.mesh):
            made = _embed(
                self.params, *batch, model=self.model, mesh=self.mesh, pooling=self.about.pooling, dim=self.dim
            )
        return np.asarray(made, np.float32)[: len(read)]


def _width(tokens: int) -> int:
    """Row length in tokens, rounded up to few values so that few programs are compiled; in finer steps up to 256."""
    step = 16 if tokens <= 128 else 32
    return rounded(tokens) if tokens > 256 else max(-(-tokens // step) * step, 16)


@functools.partial(jax.jit, static_argnames=("model", "mesh", "pooling", "dim"))
def _embed(params, inputs_BT, skipped_B, lengths_B, *, model: Model, mesh: Mesh, pooling: Pooling, dim: int):
    positions_BT = jnp.broadcast_to(jnp.arange(inputs_BT.shape[1]), inputs_BT.shape)
    there_BT = positions_BT < lengths_B[:, None]
    counted_BT = there_BT & (positions_BT >= skipped_B[:, None])
    rows = _Rows(inputs_BT, positions_BT, there_BT.astype(jnp.int32), counted_BT.astype(jnp.float32))
    vectors_BD = unit(embedding.embed(model, params, rows, 1, pooling)[:, 0, :dim])
    return jax.lax.with_sharding_constraint(vectors_BD, replicated(mesh))
