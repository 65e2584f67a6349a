"""Contrastive training of an embedding model on texts that belong together, or on single texts (SimCSE).

`form = "pairs"` reads anchors with their positives and negatives (LLM2Vec's supervised step, arXiv:2404.05961).
`form = "texts"` reads documents, each of which is its own positive under another dropout (SimCSE, arXiv:2104.08821, §3;
LLM2Vec's unsupervised step). Texts share rows without attending to each other, and every text of the batch, on all
devices, is a negative for every other text. The loss is a mean over anchors.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kanana_jax.config import to_dict
from kanana_jax.data.stream.groups import GroupEncoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import ConfigError
from kanana_jax.losses.contrastive import ContrastiveConfig, Texts, by_chunks, contrast, matching, text_keys
from kanana_jax.models import counts, embedding
from kanana_jax.models.dropout import Dropout
from kanana_jax.models.embedding import Embedding, Pooling
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import RULES, abstract_tree, tree_shardings
from kanana_jax.stages import embedding_chapter, text
from kanana_jax.stages.kind import Context, Kind, Shapes, StagePrograms, check_text, device_bytes
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.training import heldout
from kanana_jax.training.step import Loss, LossOutput
from kanana_jax.training.task import Evaluation, Frozen, Score

CONTRASTIVE_LOSS = Score("contrastive_loss")
# Keys that may change between two starts; `train.accumulate` would change each anchor's negatives.
FREE = (*(key for key in text.FREE if key != "train.accumulate"), "chunks")
# Keys that the compiled step depends on, besides those of the loss and of every stage.
_DECIDES = ("form", "negatives", "per_row", "pooling", "causal", "dropout", "chunks", "teacher_weight")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveStage(TrainingConfig):
    """The section of a stage of this kind.

    Attributes:
      contrastive: the loss.
      form: kind of record: anchors with their positives (`pairs`), or documents (`texts`).
      negatives: most negatives that are read from each record.
      per_row: most anchors (or texts) in a row, and per row of a step.
      longest: tokens of a text with its instruction; the rest is cut off. 0: as many as a row holds.
      instruction: text put verbatim before anchors: `Instruct: …\\nQuery:\\n`. Its tokens are read but not pooled.
      pooling: a text's vector is the mean of its states, or the last one.
      causal: whether tokens see only earlier ones, as in the model's pre-training.
      dropout: rate on each layer's output; `texts` needs it (LLM2Vec's SimCSE: 0.3, on attention).
      compared: rows of held-out groups whose texts are each other's negatives, rounded up to a multiple of the devices
        that share a batch. Fewer candidates are easier, so scores are comparable only at the same number.
      chunks: parts of a batch, differentiated one at a time (GradCache): less memory for one more forward pass, and
        the same gradients.
      teacher: stage or folder of an embedding model with the same tokenizer, whose vectors of the same texts are a
        further target; empty: none.
      teacher_weight: weight of the mean squared distance to them, summed over anchors, positives and negatives.
    """

    contrastive: ContrastiveConfig = ContrastiveConfig()
    form: Literal["pairs", "texts"] = "pairs"
    negatives: int = 1
    per_row: int = 8
    longest: int = 0
    instruction: str = ""
    pooling: Pooling = "mean"
    causal: bool = False
    dropout: float = 0.0
    compared: int = 16
    chunks: int = 1
    teacher: str = ""
    teacher_weight: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.tasks is not None:
            raise ValueError("an embedding model cannot continue a text: leave out 'tasks'")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a share below 1, not {self.dropout}")
        if self.form == "texts" and not self.dropout:
            raise ValueError("form = 'texts' compares a text with itself under another dropout: set dropout above 0")
        if self.compared < 1:
            raise ValueError("compared must be at least 1")
        if self.negatives < 0 or self.longest < 0 or not 1 <= self.per_row <= self.train.seq_len // 2:
            raise ValueError("negatives and longest must be at least 0, per_row at least 1 and at most half of seq_len")
        if self.train.accumulate > 1:
            raise ValueError("train.accumulate would split up texts that are each other's negatives: set 'chunks'")
        if not self.teacher_weight > 0:
            raise ValueError("teacher_weight must be above 0; to train without a teacher, leave out 'teacher'")
        if self.chunks < 1 or self.train.batch_size % self.chunks:
            raise ValueError(
                f"the {self.train.batch_size} rows of a batch must be a multiple of chunks ({self.chunks})"
            )

    def references(self) -> dict[str, str]:
        return super().references() | self.others()

    def others(self) -> dict[str, str]:
        return {"teacher": self.teacher} if self.teacher else {}

    @property
    def group(self) -> int:
        """Segments of a group."""
        return 2 + self.negatives if self.form == "pairs" else 1


def texts_of(
    model: Model, config: ContrastiveStage, params: Params, rows: Rows[jax.Array], key: jax.Array, chunks: int = 1
) -> Texts:
    """The vectors of all groups in `GroupEncoder`'s rows, N = rows × `per_row`."""
    B, G, P = rows.inputs.shape[0], config.group, config.per_row
    passes = 2 if config.form == "texts" else 1
    keys = jax.random.split(key, (B, passes))

    def encode(part: tuple[Rows[jax.Array], jax.Array]) -> jax.Array:
        own, drawn = part
        each = []
        for i in range(passes):
            dropout = Dropout(config.dropout, drawn[:, i]) if config.dropout else None
            each.append(embedding.embed(model, params, own, P * G, config.pooling, dropout))
        # A text's two passes take the place of a group's anchor and positive.
        return each[0] if passes == 1 else jnp.stack(each, axis=2)

    vectors = by_chunks(encode, (rows, keys), chunks).reshape(B * P, max(G, passes), -1)
    counted_BST = embedding.members(rows.segment_ids, rows.weights, P * G)
    there = counted_BST.any(-1).reshape(B * P, G)
    keys_of = text_keys(rows.inputs[:, None], counted_BST).reshape(B * P, G)
    if passes == 2:
        there, keys_of = (jnp.repeat(x, 2, axis=1) for x in (there, keys_of))
    parts = vectors[:, 0], vectors[:, 1], vectors[:, 2:]
    return Texts(*parts, there[:, 0] & there[:, 1], there[:, 2:], keys_of)


class Teacher(NamedTuple):
    """A frozen embedding model: the model, and the way it makes vectors."""

    model: Model
    pooling: Pooling


def make_loss(model: Model, *, config: ContrastiveStage, teacher: Teacher | None = None) -> Loss:
    """Sum of the loss over anchors; metrics are means over anchors.

    Args:
      teacher: the model whose parameters the stage passes as `others`.
    """

    def loss(params: Params, batch: Rows[jax.Array], rng: jax.Array, others: Params | None) -> LossOutput:
        texts = texts_of(model, config, params, batch, rng, config.chunks)
        found = contrast(config.contrastive, texts)
        metrics = {
            "accuracy": found.found.sum(),
            "cosine": found.cosine.sum(),
            "candidates": found.candidates.sum(),
        }
        total = found.loss.sum()
        if teacher is not None:
            assert others is not None  # a stage with a teacher has loaded it
            metrics["teacher_distance"] = distance = _distance(config, teacher, others, batch, texts)
            total = total + config.teacher_weight * distance
        read = (batch.segment_ids > 0).sum().astype(jnp.float32)
        return LossOutput(total, texts.there.sum().astype(jnp.float32), metrics, read)

    return loss


def _distance(
    config: ContrastiveStage, teacher: Teacher, params: Params, rows: Rows[jax.Array], texts: Texts
) -> jax.Array:
    """Σ of the squared distances of all texts' vectors to the teacher's, where the teacher reads each text once."""
    count = config.per_row * config.group

    def encode(part: Rows[jax.Array]) -> jax.Array:
        return embedding.embed(teacher.model, params, part, count, teacher.pooling)

    aimed_BSD = by_chunks(encode, rows, config.chunks)
    aimed_NGD = aimed_BSD.reshape(-1, config.group, aimed_BSD.shape[-1])
    own_NGD = jnp.concatenate([texts.anchors[:, None], texts.positives[:, None], texts.negatives], axis=1)
    there_NG = jnp.concatenate(
        [jnp.ones_like(texts.negatives_there, shape=(len(own_NGD), 2)), texts.negatives_there], 1
    )
    aimed_NGD = jnp.repeat(aimed_NGD, own_NGD.shape[1] // config.group, axis=1)
    return matching(own_NGD, aimed_NGD, there_NG & texts.there[:, None]).sum()


def make_evaluation(
    model: Model, held: Sequence[HeldoutRows], mesh: Mesh, *, config: ContrastiveStage, batch_size: int, chunk: int
) -> Callable[[Params], Evaluation] | None:
    """The loss of held-out groups, and the share of anchors whose positive is nearer than every negative.

    Negatives come from `config.compared` rows, `batch_size` of which are encoded at a time. All of them count: also
    those that training leaves out as false negatives, since a worse model would have more of them. Only texts of
    `form = "texts"` are compared under dropout, with keys that never change.

    Returns:
      parameters → `contrastive_loss` and `contrastive_accuracy`, each by language and source; None without held-out
      groups.
    """
    del chunk  # there are no logits
    if not held:
        return None
    parts, count = math.prod(mesh.shape[axis] for axis in RULES["batch"]), len(held)
    compared = -(-config.compared // parts) * parts
    rows_of, most = heldout.batches(held, mesh, compared), max(batch_size, parts)
    chunks = next(n for n in range(1, compared + 1) if compared % (n * parts) == 0 and compared // n <= most)
    loss = dataclasses.replace(config.contrastive, false_negative=None)
    asked = config if config.form == "texts" else dataclasses.replace(config, dropout=0.0)

    @jax.jit
    def of_batch(params: Params, rows: Rows[jax.Array]) -> jax.Array:
        texts = texts_of(model, asked, params, rows, jax.random.key(0), chunks)
        found = contrast(loss, texts)
        values = jnp.stack([found.loss, found.found, texts.there.astype(jnp.float32)], axis=-1)
        return jax.ops.segment_sum(values, jnp.repeat(rows.source, config.per_row), count)

    def evaluate(params: Params) -> Evaluation:
        sums = [np.asarray(jax.device_get(of_batch(params, batch)), np.float64) for batch in rows_of()]
        total, right, anchors = np.sum(sums, axis=0).T
        names = {CONTRASTIVE_LOSS.name: total, "contrastive_accuracy": right}
        return {name: heldout.by_name(held, value, anchors) for name, value in names.items()}

    return evaluate


def encoder(config: ContrastiveStage, tokenizer: Tokenizer) -> GroupEncoder:
    """Groups of texts."""
    paired = config.form == "pairs"
    limits = config.negatives if paired else 0, config.per_row, config.longest
    return GroupEncoder(tokenizer, config.train.seq_len, *limits, config.instruction, paired)


def _model(name: str, config: ContrastiveStage, shapes: Shapes) -> Model:
    model = text.trained_model(name, config, shapes)
    try:
        config.contrastive.check(model.architecture.embed_dim)
    except ValueError as error:
        raise ConfigError(f"stage '{name}': {error}") from error
    rows, parts = config.train.batch_size // config.chunks, math.prod(shapes.mesh.shape[a] for a in RULES["batch"])
    if rows % parts:
        raise ConfigError(
            f"config '{name}.chunks' leaves {rows} rows at a time, which the {parts} devices that share them do not "
            "divide: lower it, or raise train.batch_tokens"
        )
    return dataclasses.replace(model, causal=config.causal)


def _teacher(config: ContrastiveStage, shapes: Shapes, made: Embedding) -> Teacher | None:
    if not config.teacher:
        return None
    runtime = text.frozen_runtime(shapes.runtime, shapes.runtime.compute_dtype)
    model = shapes.model(shapes.architecture(config.teacher), config.train.seq_len, runtime)
    return Teacher(dataclasses.replace(model, causal=made.causal), made.pooling)


def _loaded_teacher(
    name: str, config: ContrastiveStage, context: Context, model: Model
) -> tuple[Teacher | None, Callable[[], Frozen]]:
    """The teacher, and the function that loads it.

    Raises:
      ConfigError: its tokenizer, length or vectors do not fit.
    """
    if not config.teacher:
        return None, Frozen
    folder = context.find(config.teacher)
    teacher = _teacher(config, context.shapes, folder.embedding or Embedding(causal=True))
    assert teacher is not None  # one is named
    a, own = teacher.model.architecture, model.architecture.embed_dim
    check_text(name, context, a, folder, "train.seq_len", config.train.seq_len, "teacher")
    if a.embed_dim < own:
        raise ConfigError(
            f"stage '{name}': the teacher's vectors have {a.embed_dim} numbers and the model's {own}: name one that is "
            "at least as wide"
        )
    return teacher, lambda: Frozen(context.load(folder, teacher.model))


def run(name: str, config: ContrastiveStage, context: Context) -> None:
    """Trains on groups of texts."""
    model = _model(name, config, context.shapes)
    teacher, make_frozen = _loaded_teacher(name, config, context, model)
    task = text.make_task(
        name,
        config,
        context,
        model,
        make_loss(model, config=config, teacher=teacher),
        encoder=encoder(config, context.tokenizer),
        evaluation=functools.partial(make_evaluation, config=config),
        score=CONTRASTIVE_LOSS,
        make_frozen=make_frozen,
        flops={} if teacher is None else {"teacher": _teacher_flops(teacher, config)},
    )
    longest, dims = config.longest or config.train.seq_len, config.contrastive.matryoshka
    made = Embedding(config.causal, config.pooling, config.instruction, longest, dims)
    text.train(name, config, context, model, task, embedding=made)


def programs(name: str, config: ContrastiveStage, shapes: Shapes) -> StagePrograms:
    """The step."""
    model = _model(name, config, shapes)
    about: dict[str, Any] = {key: getattr(config, key) for key in _DECIDES}
    about["contrastive"] = to_dict(config.contrastive)
    teacher = _teacher(config, shapes, Embedding())  # every way of making vectors costs the same
    loss = make_loss(model, config=config, teacher=teacher)
    more: dict[str, Any] = {}
    if teacher is not None:
        axes = tree_shardings(shapes.mesh, teacher.model.logical_axes())
        params = abstract_tree(teacher.model.abstract_params(), axes)
        more = {
            "others": params,
            "architectures": {"teacher": teacher.model.architecture},
            "resident": {"teacher": device_bytes(params)},
            "flops": _teacher_flops(teacher, config),
        }
    return text.step_programs(name, config, shapes, model, loss, about=about, **more)


def _teacher_flops(teacher: Teacher, config: ContrastiveStage) -> float:
    return counts.forward_flops_per_token(teacher.model.architecture, config.train.seq_len)


KIND = Kind(
    "contrastive",
    ContrastiveStage,
    run,
    free=FREE,
    decisive=text.decisive,
    programs=programs,
    encoder=encoder,
    chapter=embedding_chapter.CHAPTER,
)
