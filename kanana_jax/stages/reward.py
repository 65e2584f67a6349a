"""Reward models: a scalar head on a model, trained on pairs of answers (Kanana, arXiv:2502.18934, §3.1).

Rows hold whole pairs, as in `dpo`; an answer's reward is the head's value at the token that ends it. The head
starts at zero, or as the head of the reward model that the stage starts from, and is saved with the model.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kanana_jax.config import to_dict
from kanana_jax.data.stream.encode import RewardEncoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.interop import model_folder
from kanana_jax.losses.preference import Pair, by_pair
from kanana_jax.losses.reward import RewardLossConfig, bradley_terry
from kanana_jax.models import reward
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.stages import reward_chapter, text
from kanana_jax.stages.adapters import Added
from kanana_jax.stages.kind import SCRATCH, Context, Kind, Shapes, StagePrograms
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.training import heldout
from kanana_jax.training.step import Loss, LossOutput
from kanana_jax.training.task import Evaluation, Score

REWARD_LOSS = Score("reward_loss")
# Bounds for the length ratio of chosen to rejected answers, in tokens.
LENGTH_RATIOS = (0.5, 0.9, 1 / 0.9, 2.0)
LENGTHS = ("below half", "shorter", "alike", "longer", "above twice")
# Bounds for the probability of the preferred answer; accuracies are counted per interval.
CONFIDENCES = ("50-60%", "60-70%", "70-80%", "80-90%", "90-100%")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardConfig(TrainingConfig):
    """The section of a stage of this kind.

    Attributes:
      reward: the loss.
    """

    reward: RewardLossConfig = RewardLossConfig()

    def __post_init__(self):
        super().__post_init__()
        if self.start == SCRATCH:
            raise ValueError("a reward model starts from a language model: name a stage or a folder in 'start'")
        if self.tasks is not None:
            raise ValueError("a reward model cannot answer: leave out 'tasks'")


def rewards(rows: Rows[jax.Array], scores_BT: jax.Array) -> tuple[Pair[jax.Array], Pair[jax.Array], jax.Array]:
    """The rewards, the answers' lengths, and 1 + the pairs' margins in rows of `RewardEncoder`, each `[B, P]`.

    Where there is no pair, lengths and 1 + margin are 0.
    """
    weighs_BT = rows.weights > 0
    follows_BT = weighs_BT[:, 1:] & (rows.segment_ids[:, 1:] == rows.segment_ids[:, :-1])
    ends_BT = weighs_BT & ~jnp.pad(follows_BT, ((0, 0), (0, 1)))
    said_BT = (weighs_BT & ~ends_BT).astype(jnp.float32)
    found, lengths, margins = (
        by_pair(values, rows.segment_ids)
        for values in (jnp.where(ends_BT, scores_BT, 0.0), said_BT, jnp.where(ends_BT, rows.weights, 0.0))
    )
    return found, lengths, margins.chosen


def make_loss(model: Model, *, config: RewardLossConfig) -> Loss:
    """Sum of the loss over pairs; metrics are means over pairs."""

    def loss(params: Params, batch: Rows[jax.Array], rng: jax.Array, others: None) -> LossOutput:
        del rng, others  # nothing is sampled, no other model is needed
        found, lengths, margins = rewards(batch, reward.scores(model, params, batch))
        there = margins > 0
        by_pair_values = {
            "accuracy": (found.chosen > found.rejected).astype(jnp.float32),
            "margin": found.chosen - found.rejected,
            "reward_chosen": found.chosen,
            "reward_rejected": found.rejected,
            "chosen_tokens": lengths.chosen,
            "rejected_tokens": lengths.rejected,
        }
        metrics = {name: jnp.where(there, value, 0.0).sum() for name, value in by_pair_values.items()}
        value = jnp.where(there, bradley_terry(config, found, margins - 1), 0.0).sum()
        read = (batch.segment_ids > 0).sum().astype(jnp.float32)
        return LossOutput(value, there.sum().astype(jnp.float32), metrics, read)

    return loss


def make_evaluation(
    model: Model, held: Sequence[HeldoutRows], mesh: Mesh, *, config: RewardLossConfig, batch_size: int, chunk: int
) -> Callable[[Params], Evaluation] | None:
    """The loss and accuracy on held-out pairs, and the calibration of the model's confidence.

    Returns:
      parameters → `reward_loss`, `reward_accuracy` (also by the length of the chosen answer relative to the rejected),
      `reward_ece` (expected calibration error, arXiv:1706.04599, eq. 3: of σ|r_c − r_r| as the probability of being
      right), each by language and source, and `calibration`, the reliability diagram: interval of confidence
      → `{"pairs", "confidence", "accuracy"}`. None without held-out pairs.
    """
    del chunk  # there are no logits
    if not held:
        return None
    rows_of, count = heldout.batches(held, mesh, batch_size), len(held)
    cells = (count, len(LENGTHS), len(CONFIDENCES))

    @jax.jit
    def of_batch(params: Params, rows: Rows[jax.Array]) -> jax.Array:
        found, lengths, margins = rewards(rows, reward.scores(model, params, rows))
        there = margins > 0
        apart = found.chosen - found.rejected
        confidence = jax.nn.sigmoid(jnp.abs(apart))
        ratio = lengths.chosen / jnp.maximum(lengths.rejected, 1.0)
        length = (ratio[..., None] > jnp.asarray(LENGTH_RATIOS)).sum(-1)
        # From one half to one, in equal intervals; one itself belongs to the last.
        part = jnp.minimum((2 * cells[2] * (confidence - 0.5)).astype(jnp.int32), cells[2] - 1)
        cell = (rows.source[:, None] * cells[1] + length) * cells[2] + part
        values = (bradley_terry(config, found, margins - 1), apart > 0, 1.0, confidence)
        summed = [jnp.where(there, value, 0.0).reshape(-1) for value in values]
        return jax.ops.segment_sum(jnp.stack(summed, -1), cell.reshape(-1), int(np.prod(cells)))

    def evaluate(params: Params) -> Evaluation:
        parts = [np.asarray(jax.device_get(of_batch(params, batch)), np.float64) for batch in rows_of()]
        return figures(held, np.sum(parts, axis=0).reshape(*cells, 4))

    return evaluate


def figures(held: Sequence[HeldoutRows], sums: np.ndarray) -> Evaluation:
    """The evaluation from sums of loss, correct pairs, pairs and confidence, `[sources, lengths, confidences, 4]`."""
    loss, right, pairs, _ = np.moveaxis(sums.sum((1, 2)), -1, 0)
    accuracy = heldout.by_name(held, right, pairs)
    for name, (_, own_right, own_pairs, _) in zip(LENGTHS, sums.sum((0, 2))):
        if own_pairs:
            accuracy[f"length/{name}"] = float(own_right / own_pairs)
    # |accuracy − confidence| of an interval, weighted by its pairs, is |Σ right − Σ confidence|.
    names = {f"lang/{one.lang}": [i for i, h in enumerate(held) if h.lang == one.lang] for one in held}
    names |= {f"source/{one.name}": [i] for i, one in enumerate(held)}
    ece = {}
    for name, chosen in names.items():
        _, own_right, own_pairs, confidence = np.moveaxis(sums[chosen].sum((0, 1)), -1, 0)
        ece[name] = float(np.abs(own_right - confidence).sum() / own_pairs.sum())
    parts = zip(CONFIDENCES, sums.sum((0, 1)))
    bins = {
        part: {"pairs": float(n), "confidence": float(c / n), "accuracy": float(r / n)}
        for part, (_, r, n, c) in parts
        if n
    }
    loss_by_name = heldout.by_name(held, loss, pairs)
    return {REWARD_LOSS.name: loss_by_name, "reward_accuracy": accuracy, "reward_ece": ece, "calibration": bins}


def _added(model: Model, make: Callable[[], Params] = dict) -> Added:
    return Added({reward.HEAD: reward.abstract_head(model)}, {reward.HEAD: reward.AXES}, make)


def encoder(config: RewardConfig, tokenizer: Tokenizer) -> RewardEncoder:
    """Pairs."""
    return RewardEncoder(tokenizer, config.train.seq_len, config.reward.margin)


def run(name: str, config: RewardConfig, context: Context) -> None:
    """Trains on pairs."""
    shapes = context.shapes
    model, parent = text.trained_model(name, config, shapes), context.find(config.start)

    def head() -> Params:
        """A head of zeros, so that the first loss is ln 2, or that of the reward model that is trained further."""
        own = reward.abstract_head(model)
        known = model_folder.open_weights(parent).has_head
        value = model_folder.load_head(parent, model.runtime) if known else np.zeros(own.shape, own.dtype)
        return reward.on_mesh(value, shapes.mesh)

    task = text.make_task(
        name,
        config,
        context,
        model,
        make_loss(model, config=config.reward),
        encoder=encoder(config, context.tokenizer),
        evaluation=functools.partial(make_evaluation, config=config.reward),
        score=REWARD_LOSS,
        added=_added(model, head),
    )
    text.train(name, config, context, model, task)


def programs(name: str, config: RewardConfig, shapes: Shapes) -> StagePrograms:
    """The step."""
    model = text.trained_model(name, config, shapes)
    loss, about = make_loss(model, config=config.reward), {"reward": to_dict(config.reward)}
    return text.step_programs(name, config, shapes, model, loss, about=about, added=_added(model))


KIND = Kind(
    "reward",
    RewardConfig,
    run,
    free=text.FREE,
    decisive=text.decisive,
    programs=programs,
    encoder=encoder,
    chapter=reward_chapter.CHAPTER,
)
