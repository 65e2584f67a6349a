"""Masked next-token prediction: a decoder learns to use the text after a token (LLM2Vec, arXiv:2404.05961, §2).

Attention reaches over a whole document. Some tokens are masked; each is predicted from the state of the token
before it, as in a decoder. The loss is a mean over masked tokens; checkpoints are ranked by the
same loss on held-out documents, under masks that never change.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import ConfigError
from kanana_jax.losses.cross_entropy import cross_entropy
from kanana_jax.models.embedding import Embedding
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.stages import embedding_chapter, text
from kanana_jax.stages.kind import Context, Kind, Shapes, StagePrograms
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.training import heldout
from kanana_jax.training.step import Loss, LossOutput
from kanana_jax.training.task import Evaluation, Score

MASKED_LOSS = Score("masked_loss")


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """The tokens that are masked.

    Attributes:
      rate: share of masked tokens (LLM2Vec's configurations: 0.2).
      token: the token that replaces them: one of the vocabulary, since decoders have no mask; LLM2Vec uses `_`.
      random: share of the masked tokens replaced by a random token of the vocabulary instead of `token`, and
      kept: share of those left unchanged (BERT, arXiv:1810.04805, §3.1: 0.1 each).
    """

    rate: float = 0.2
    token: str = "_"
    random: float = 0.0
    kept: float = 0.0

    def __post_init__(self):
        if not 0 < self.rate < 1:
            raise ValueError(f"mask.rate must be a share between 0 and 1, not {self.rate}")
        if min(self.random, self.kept) < 0 or self.random + self.kept > 1:
            raise ValueError("mask.random and mask.kept must be shares of the masked tokens, together at most 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MntpStage(TrainingConfig):
    """The section of a stage of this kind.

    Attributes:
      mask: which tokens are masked.
    """

    mask: MaskConfig = MaskConfig()

    def __post_init__(self):
        super().__post_init__()
        if self.tasks is not None:
            raise ValueError("a model that sees later tokens cannot continue a text: leave out 'tasks'")


def mask_id(config: MaskConfig, tokenizer: Tokenizer) -> int:
    """The id of the token that stands for masked ones.

    Raises:
      ConfigError: the vocabulary has no such token.
    """
    known = tokenizer.token_id(config.token)
    if known is not None:
        return known
    ids = tokenizer.encode(config.token)
    if len(ids) != 1:
        raise ConfigError(
            f"config 'mask.token' is {config.token!r}, which is {len(ids)} tokens in this vocabulary: name a single one"
        )
    return int(ids[0])


def masked(config: MaskConfig, rows: Rows[jax.Array], key: jax.Array, token: int, words: int) -> Rows[jax.Array]:
    """Rows with masked inputs, whose only weighted targets are the masked inputs.

    A document's first token has no state before it and is never masked; nor is a row's last target: it is not an input.

    Args:
      token: id of the masking token.
      words: number of token ids from which random ones are drawn.
    """
    which, how, what = jax.random.split(key, 3)
    shape = rows.inputs.shape
    # An input is a target if its predecessor is in the same segment; the predecessor's weight decides whether it
    # counts.
    learnt_BT = jnp.pad(rows.weights[:, :-1], ((0, 0), (1, 0))) > 0
    drawn_BT = learnt_BT & jax.random.bernoulli(which, config.rate, shape)
    part_BT = jax.random.uniform(how, shape)
    shown_BT = jnp.where(part_BT < config.random, jax.random.randint(what, shape, 0, words), token)
    shown_BT = jnp.where(part_BT >= 1 - config.kept, rows.inputs, shown_BT)
    inputs_BT = jnp.where(drawn_BT, shown_BT, rows.inputs).astype(rows.inputs.dtype)
    asked_BT = jnp.pad(drawn_BT[:, 1:], ((0, 0), (0, 1)))
    return rows._replace(inputs=inputs_BT, weights=rows.weights * asked_BT)


def make_loss(model: Model, *, config: MaskConfig, token: int, words: int, chunk: int) -> Loss:
    """Sum of cross-entropy over masked tokens."""

    def loss(params: Params, batch: Rows[jax.Array], rng: jax.Array, others: None) -> LossOutput:
        del others  # no other model is needed
        rows = masked(config, batch, rng, token, words)
        hidden_BTD, unembedding_VD = model(params, rows)
        cap = model.architecture.logits_softcap
        output = cross_entropy(hidden_BTD, unembedding_VD, rows.targets, rows.weights, chunk=chunk, soft_cap=cap)
        read = (batch.segment_ids > 0).sum().astype(jnp.float32)
        return LossOutput(output.loss, rows.weights.sum(), {"nll": output.nll}, read)

    return loss


def make_evaluation(
    model: Model,
    held: Sequence[HeldoutRows],
    mesh: Mesh,
    *,
    config: MaskConfig,
    token: int,
    words: int,
    batch_size: int,
    chunk: int,
) -> Callable[[Params], Evaluation] | None:
    """Nats per masked token of held-out documents: `{"masked_loss": {"lang/ko": x, "source/web": y}}`; or None."""
    if not held:
        return None
    hidden, mask = [], jax.jit(lambda rows, key: masked(config, rows, key, token, words))
    for place, own in enumerate(held):
        rows = mask(own.rows, jax.random.key(place))
        if np.any(rows.weights):  # in a few short documents, no token may be masked
            hidden.append(dataclasses.replace(own, rows=Rows(*map(np.asarray, rows))))
    if not hidden:
        return None
    sums = heldout.make_sums(model, hidden, mesh, batch_size=batch_size, chunk=chunk)
    return lambda params: {MASKED_LOSS.name: heldout.by_name(hidden, *sums(params))}


def _model(name: str, config: MntpStage, shapes: Shapes) -> Model:
    return dataclasses.replace(text.trained_model(name, config, shapes), causal=False)


def run(name: str, config: MntpStage, context: Context) -> None:
    """Trains on documents."""
    model, tokenizer = _model(name, config, context.shapes), context.tokenizer
    about = {"config": config.mask, "token": mask_id(config.mask, tokenizer), "words": tokenizer.vocab_size}
    task = text.make_task(
        name,
        config,
        context,
        model,
        make_loss(model, **about, chunk=config.train.loss_chunk),
        evaluation=functools.partial(make_evaluation, **about),
        score=MASKED_LOSS,
    )
    text.train(name, config, context, model, task, embedding=Embedding(longest=config.train.seq_len))


def programs(name: str, config: MntpStage, shapes: Shapes) -> StagePrograms:
    """The step, which does not depend on the choice of the masking token."""
    model = _model(name, config, shapes)
    about = {"config": config.mask, "token": 0, "words": model.architecture.vocab_size}
    return text.step_programs(name, config, shapes, model, make_loss(model, **about, chunk=config.train.loss_chunk))


KIND = Kind(
    "mntp",
    MntpStage,
    run,
    free=text.FREE,
    decisive=text.decisive,
    programs=programs,
    chapter=embedding_chapter.CHAPTER,
)
