"""Offline preference optimisation: DPO and its relatives on pairs of answers (Kanana, arXiv:2502.18934, §3.1).

Rows hold whole pairs: a chosen answer is an odd segment of its row, its rejected one the next segment. The unit of the
loss is a pair. The reference is frozen, and its log-probabilities are computed before each step by the same function as
the policy's; for held-out pairs, only once.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from kanana_jax.config import to_dict
from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import PairEncoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.packing import Array, Rows
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.losses.logprob import Drawn, log_probs
from kanana_jax.losses.preference import Pair, Preference, PreferenceConfig, by_pair, preference
from kanana_jax.models import counts
from kanana_jax.models.architecture import DType
from kanana_jax.models.lora import LoraConfig
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import abstract_batch, abstract_tree, spec, tree_shardings
from kanana_jax.stages import preference_chapter, reference_cache, text
from kanana_jax.stages.kind import SCRATCH, Context, Kind, Program, Shapes, StagePrograms, check_text, device_bytes
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.training import heldout
from kanana_jax.training.step import Loss, LossOutput
from kanana_jax.training.task import Evaluation, Frozen, Score, TrainConfig

PREFERENCE_LOSS = Score("preference_loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DpoConfig(TrainingConfig):
    """The section of a stage of this kind.

    Attributes:
      preference: the loss.
      reference: name of an earlier stage, or a model folder; empty: the model that the stage starts from.
      reference_dtype: dtype in which the reference is stored and runs; None: the runtime's compute_dtype, so that
        a policy equal to its reference has log-ratios of exactly 0.
      reference_cache: folder that keeps the reference's log-probabilities of each answer (`reference_cache.py`), for
        this and any other stage with the same reference; the model is loaded only for new answers. Empty: no cache.
    """

    preference: PreferenceConfig = PreferenceConfig()
    reference: str = ""
    reference_dtype: DType | None = None
    reference_cache: str = ""

    def __post_init__(self):
        super().__post_init__()
        if self.start == SCRATCH:
            raise ValueError(
                "a preference stage starts from a model that can answer: name a stage or a folder in 'start'"
            )
        if self.reference and not self.preference.needs_reference:
            raise ValueError(f"loss '{self.preference.loss}' reads no reference: leave out 'reference'")
        if self.reference_cache and not self.preference.needs_reference:
            raise ValueError(f"loss '{self.preference.loss}' reads no reference: leave out 'reference_cache'")

    @property
    def reference_model(self) -> str:
        """The stage or folder of the reference; empty where the loss needs none."""
        return (self.reference or self.start) if self.preference.needs_reference else ""

    def references(self) -> dict[str, str]:
        return super().references() | ({"reference": self.reference} if self.reference else {})

    def others(self) -> dict[str, str]:
        return super().others() | ({"reference": self.reference_model} if self.reference_model else {})


class PairRows(NamedTuple, Generic[Array]):
    """Rows of whole pairs, and log p of their targets under the reference, float32 `[B, T]`."""

    rows: Rows[Array]
    reference: Array


def target_log_probs(
    model: Model,
    params: Params,
    rows: Rows[jax.Array],
    chunk: int,
    drawn: Drawn | None = None,
    cuts: jax.Array | None = None,
) -> jax.Array:
    """log p of each target, float32 `[B, T]`, of the model or of a sampler (`log_probs`); differentiable."""
    hidden_BTD, unembedding_VD = model(params, rows)
    cap = model.architecture.logits_softcap
    return log_probs(hidden_BTD, unembedding_VD, rows.targets, chunk=chunk, soft_cap=cap, drawn=drawn, cuts=cuts)


def judged(
    config: PreferenceConfig, rows: Rows[jax.Array], policy_BT: jax.Array, reference_BT: jax.Array
) -> tuple[Preference, Pair[jax.Array], Pair[jax.Array], jax.Array]:
    """The pairs in a batch of rows.

    Args:
      policy_BT, reference_BT: log p of the targets.

    Returns:
      Loss, the policy's Σ log p and the answers' lengths, all `[B, P]`, and a mask of actual pairs, bool `[B, P]`.
    """
    policy = by_pair(policy_BT * rows.weights, rows.segment_ids)
    reference = by_pair(reference_BT * rows.weights, rows.segment_ids)
    lengths = by_pair(rows.weights, rows.segment_ids)
    there = (lengths.chosen > 0) & (lengths.rejected > 0)
    one = Pair(*(jnp.where(there, length, 1.0) for length in lengths))
    # Without a pair, log-probabilities of 0 would lie outside the domain of some losses.
    safe = Pair(*(jnp.where(there, log_p, -1.0) for log_p in policy))
    return preference(config, safe, reference, one), policy, one, there


def make_loss(model: Model, *, config: PreferenceConfig, chunk: int) -> Loss:
    """Sum of the loss over pairs; metrics are means over pairs.

    `reward_…` and `margin` are β times log-ratios; `…_log_prob` is log p per token of an answer; `…_tokens` is its
    length; `kl_…` is the mean of ½·(log π − log ρ)² over its tokens, an estimate of KL(π‖ρ) per token that is never
    negative (http://joschu.net/blog/kl-approx.html, k2) and holds if the answers are typical of policy or reference.
    """

    def loss(params: Params, batch: PairRows[jax.Array], rng: jax.Array, others: None) -> LossOutput:
        del rng, others  # nothing is sampled; the reference's log-probabilities are in the batch
        return pair_loss(config, batch, target_log_probs(model, params, batch.rows, chunk))

    return loss


def pair_loss(config: PreferenceConfig, batch: PairRows[jax.Array], policy_BT: jax.Array) -> LossOutput:
    """The sums of `make_loss`, from log p of the targets under the policy."""
    rows = batch.rows
    found, policy, lengths, there = judged(config, rows, policy_BT, batch.reference)
    rewards = found.rewards
    by_pair_values = {
        "accuracy": (rewards.chosen > rewards.rejected).astype(jnp.float32),
        "margin": rewards.chosen - rewards.rejected,
        "reward_chosen": rewards.chosen,
        "reward_rejected": rewards.rejected,
        "chosen_log_prob": policy.chosen / lengths.chosen,
        "rejected_log_prob": policy.rejected / lengths.rejected,
        "chosen_tokens": lengths.chosen,
        "rejected_tokens": lengths.rejected,
    }
    if config.needs_reference:
        kl = by_pair(jnp.square(policy_BT - batch.reference) / 2 * rows.weights, rows.segment_ids)
        by_pair_values |= {"kl_chosen": kl.chosen / lengths.chosen, "kl_rejected": kl.rejected / lengths.rejected}
    metrics = {name: jnp.where(there, value, 0.0).sum() for name, value in by_pair_values.items()}
    read = (rows.segment_ids > 0).sum().astype(jnp.float32)
    return LossOutput(jnp.where(there, found.loss, 0.0).sum(), there.sum().astype(jnp.float32), metrics, read)


def forward(
    model: Model, mesh: Mesh, chunk: int, drawn: Drawn | None = None
) -> Callable[[Params, Rows[jax.Array]], jax.Array]:
    """`(params, rows) → log p of the targets [B, T]`, jitted."""
    run = functools.partial(target_log_probs, model, chunk=chunk, drawn=drawn)
    return jax.jit(lambda params, rows: run(params, rows), out_shardings=NamedSharding(mesh, spec("batch", "sequence")))


class HasReference(Protocol):
    """The section of a stage with a reference, see `DpoConfig`."""

    @property
    def start(self) -> str: ...

    @property
    def reference_model(self) -> str: ...

    @property
    def reference_dtype(self) -> DType | None: ...

    @property
    def lora(self) -> LoraConfig | None: ...

    @property
    def train(self) -> TrainConfig: ...


class Reference:
    """The frozen reference of a stage: loaded at its first use, and then kept.

    Args:
      cache: see `DpoConfig.reference_cache`.

    Attributes:
      model: the model as it runs; None: the loss needs none.
      shared: see `shares_base`.
    """

    def __init__(self, name: str, config: HasReference, context: Context, drawn: Drawn | None = None, cache: str = ""):
        self._context, self._mesh, self._start = context, context.shapes.mesh, config.start
        self.model = reference_model(config, context.shapes)
        self.shared = shares_base(config, context.shapes)
        self._params: Params | None = None
        self._cache: reference_cache.ReferenceCache | None = None
        if self.model is not None:
            self._folder = context.find(config.reference_model)
            seq_len = config.train.seq_len
            check_text(name, context, self.model.architecture, self._folder, "train.seq_len", seq_len, "reference")
            self._forward = forward(self.model, self._mesh, config.train.loss_chunk, drawn)
            if cache:
                self._cache = reference_cache.of_stage(name, cache, context, self._folder, self.model)

    def pairs(self, rows: Rows[jax.Array]) -> PairRows[jax.Array]:
        """Rows with the reference's log-probabilities."""
        found = self.log_probs(rows)
        return PairRows(rows, jnp.zeros_like(rows.weights) if found is None else found)

    def log_probs(self, rows: Rows[jax.Array]) -> jax.Array | None:
        """log p of the targets, float32 `[B, T]`; None: the loss needs no reference."""
        if self.model is None:
            return None
        if self._cache is None:
            return self._forward(self.params(), rows)
        local = jax.device_get(rows)
        found = self._cache.find(local)
        if found is None:
            found = self._cache.add(local, jax.device_get(self._forward(self.params(), rows)))
        return jax.device_put(found, NamedSharding(self._mesh, spec("batch", "sequence")))

    def params(self) -> Params:
        assert self.model is not None  # otherwise it is never called
        if self._params is None:
            self._params = self._context.load(self._folder, self.model)
        return self._params

    def base(self, model: Model) -> Params:
        """The base of the stage's adapters: the reference itself, if it is the same model in the same dtype."""
        if self.shared:
            return self.params()
        return self._context.load(self._context.find(self._start), model)

    def frozen(self) -> Frozen:
        return Frozen(prepare=lambda params, rows, step, key: self.pairs(rows))


def reference_model(config: HasReference, shapes: Shapes) -> Model | None:
    """The model, with its runtime, of a stage's reference."""
    if not config.reference_model:
        return None
    runtime = text.frozen_runtime(shapes.runtime, _dtype(config, shapes))
    return shapes.model(shapes.architecture(config.reference_model), config.train.seq_len, runtime)


def _dtype(config: HasReference, shapes: Shapes) -> DType:
    return config.reference_dtype or shapes.runtime.compute_dtype


def shares_base(config: HasReference, shapes: Shapes) -> bool:
    """Returns whether the reference is the frozen base of the stage's adapters, so that one copy serves as both."""
    if config.lora is None or config.reference_model != config.start:
        return False
    return (config.lora.base_dtype or shapes.runtime.compute_dtype) == _dtype(config, shapes)


def make_evaluation(
    model: Model,
    held: Sequence[HeldoutRows],
    mesh: Mesh,
    *,
    config: PreferenceConfig,
    reference: Reference,
    batch_size: int,
    chunk: int,
) -> Callable[[Params], Evaluation] | None:
    """The loss of held-out pairs, and their accuracy: the share in which the chosen answer has the higher reward.

    Both by language and by source. The reference is the one used in training; its log-probabilities are computed once.
    """
    if not held:
        return None
    rows_of, count = heldout.batches(held, mesh, batch_size), len(held)

    @jax.jit
    def of_batch(params: Params, batch: PairRows[jax.Array]) -> jax.Array:
        rows = batch.rows
        found, _, _, there = judged(config, rows, target_log_probs(model, params, rows, chunk), batch.reference)
        right = found.rewards.chosen > found.rewards.rejected
        values = [jnp.where(there, value, 0.0).sum(axis=1) for value in (found.loss, right, 1.0)]
        return jax.vmap(lambda value: jax.ops.segment_sum(value, rows.source, count))(jnp.stack(values))

    known: list[PairRows[jax.Array]] = []

    def evaluate(params: Params) -> Evaluation:
        if not known:
            known.extend(reference.pairs(rows) for rows in rows_of())
        sums = sum(np.asarray(jax.device_get(of_batch(params, batch)), np.float64) for batch in known)
        loss, right, pairs = np.asarray(sums)
        return {
            PREFERENCE_LOSS.name: heldout.by_name(held, loss, pairs),
            "preference_accuracy": heldout.by_name(held, right, pairs),
        }

    return evaluate


def encoder(config: DpoConfig, tokenizer: Tokenizer) -> PairEncoder:
    """Pairs."""
    return PairEncoder(tokenizer, config.train.seq_len)


def run(name: str, config: DpoConfig, context: Context) -> None:
    """Trains on pairs."""
    chunk, shapes = config.train.loss_chunk, context.shapes
    model = text.trained_model(name, config, shapes)
    reference = Reference(name, config, context, cache=config.reference_cache)
    task = text.make_task(
        name,
        config,
        context,
        model,
        make_loss(model, config=config.preference, chunk=chunk),
        encoder=encoder(config, context.tokenizer),
        evaluation=functools.partial(make_evaluation, config=config.preference, reference=reference),
        score=PREFERENCE_LOSS,
        make_frozen=reference.frozen,
        load_base=reference.base,
        flops=reference_flops(reference.model, config),
    )
    text.train(name, config, context, model, task)


def reference_flops(reference: Model | None, config: HasReference) -> dict[str, float]:
    """FLOPs of a stage's reference per token, by its name; empty where there is none."""
    if reference is None:
        return {}
    return {"reference": counts.forward_flops_per_token(reference.architecture, config.train.seq_len)}


def plan_reference(
    config: HasReference, shapes: Shapes, rows: Rows[np.ndarray] | None = None, drawn: Drawn | None = None
) -> dict[str, Any]:
    """The arguments of `text.step_programs` for a stage's reference; empty where there is none.

    Args:
      rows: the rows that it reads, as arrays that use no memory; None: those of the stage's batch.
      drawn: see `Reference`.
    """
    reference, mesh, train = reference_model(config, shapes), shapes.mesh, config.train
    if reference is None:
        return {}
    params = abstract_tree(reference.abstract_params(), tree_shardings(mesh, reference.logical_axes()))
    read = packing.shapes(train.batch_size, train.seq_len) if rows is None else rows
    arguments = {"params": params, "rows": abstract_batch(mesh, read)}
    return {
        "before": (Program("reference", forward(reference, mesh, train.loss_chunk, drawn), arguments, mesh),),
        "architectures": {"reference": reference.architecture},
        "resident": {} if shares_base(config, shapes) else {"reference": device_bytes(params)},
    }


def programs(name: str, config: DpoConfig, shapes: Shapes) -> StagePrograms:
    """The step, preceded by the reference."""
    train, mesh = config.train, shapes.mesh
    model = text.trained_model(name, config, shapes)
    rows = abstract_batch(mesh, packing.shapes(train.batch_size, train.seq_len))
    by_token = abstract_batch(mesh, np.broadcast_to(np.float32(0), (train.batch_size, train.seq_len)))
    return text.step_programs(
        name,
        config,
        shapes,
        model,
        make_loss(model, config=config.preference, chunk=train.loss_chunk),
        batch=PairRows(rows, by_token),
        flops=sum(reference_flops(reference_model(config, shapes), config).values()),
        about={"preference": to_dict(config.preference)},
        **plan_reference(config, shapes),
    )


KIND = Kind(
    "dpo",
    DpoConfig,
    run,
    free=text.FREE,
    decisive=text.decisive,
    programs=programs,
    encoder=encoder,
    chapter=preference_chapter.CHAPTER,
)
