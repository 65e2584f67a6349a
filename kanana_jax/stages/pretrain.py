"""Pre-training: next-token cross-entropy and z-loss on packed documents (Kanana, arXiv:2502.18934, §2.2)."""

import jax

from kanana_jax.data.stream.packing import Rows
from kanana_jax.losses.cross_entropy import cross_entropy
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.stages import text
from kanana_jax.stages.kind import Context, Kind, Shapes, StagePrograms
from kanana_jax.stages.text import TrainingConfig
from kanana_jax.training.step import Loss, LossOutput


def make_loss(model: Model, *, z_loss: float, chunk: int) -> Loss:
    """Sum of cross-entropy and z-loss over the tokens that carry loss."""

    def loss(params: Params, batch: Rows[jax.Array], rng: jax.Array, others: None) -> LossOutput:
        del rng, others  # nothing is sampled, no other model is needed
        hidden_BTD, unembedding_VD = model(params, batch)
        cap = model.architecture.logits_softcap
        output = cross_entropy(
            hidden_BTD, unembedding_VD, batch.targets, batch.weights, z_loss=z_loss, chunk=chunk, soft_cap=cap
        )
        return LossOutput(output.loss, batch.weights.sum(), {"nll": output.nll, "z_loss": output.z_loss})

    return loss


def _loss(config: TrainingConfig, model: Model) -> Loss:
    return make_loss(model, z_loss=config.train.z_loss, chunk=config.train.loss_chunk)


def run(name: str, config: TrainingConfig, context: Context) -> None:
    """Trains on the mixture, from scratch or from another model."""
    model = text.trained_model(name, config, context.shapes)
    text.train(name, config, context, model, text.make_task(name, config, context, model, _loss(config, model)))


def programs(name: str, config: TrainingConfig, shapes: Shapes) -> StagePrograms:
    """The step."""
    model = text.trained_model(name, config, shapes)
    return text.step_programs(name, config, shapes, model, _loss(config, model))


KIND = Kind("pretrain", TrainingConfig, run, free=text.FREE, decisive=text.decisive, programs=programs)
