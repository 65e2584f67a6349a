"""LLM2Vec's steps in PyTorch, written plainly (arXiv:2404.05961, §2): the peer of `embedding_steps.py`.

The model is a Hugging Face folder of a decoder of Llama's kind. A batch is one of our packed rows
(`kanana_jax.data.stream.packing.Rows`), so that both read the same tokens in the same order; masks and dropout are
drawn here. Two things are as in our stages and not as in LLM2Vec's code: all weights are trained, and what attention
and MLP add is dropped in place of attention's weights. One thing is not as in ours: of two equal texts in a batch, each
is a negative of the other.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional as F

from kanana_jax.applications.embedder import Vectors
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.tokens.instructed import of_ids
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.models.embedding import Embedding
from kanana_jax.stages.contrastive import ContrastiveStage
from kanana_jax.stages.mntp import MntpStage
from kanana_jax.training.task import TrainConfig

# (model, batch) → the mean loss of the batch.
Loss = Callable[[Any, Rows[torch.Tensor]], torch.Tensor]


def load(folder: pathlib.Path | str) -> Any:
    """The decoder of a Hugging Face folder in float32."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def states(model: Any, inputs_BT: torch.Tensor, positions_BT: torch.Tensor, segments_BT: torch.Tensor) -> torch.Tensor:
    """Final states `[B, T, D]`; each token attends to all tokens of its own segment, before and behind it."""
    same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    hidden = torch.zeros(same_BTT.shape).masked_fill(~same_BTT, torch.finfo(torch.float32).min)
    out = model.model(input_ids=inputs_BT, position_ids=positions_BT, attention_mask=hidden[:, None], use_cache=False)
    return out.last_hidden_state


def masked(rows: Rows[torch.Tensor], rate: float, generator: torch.Generator) -> torch.Tensor:
    """Which inputs are masked, bool `[B, T]`: any token of a document but its first, which nothing predicts."""
    follows_BT = F.pad(rows.weights[:, :-1] > 0, (1, 0))
    return follows_BT & (torch.rand(rows.inputs.shape, generator=generator) < rate)


def mntp_loss(model: Any, rows: Rows[torch.Tensor], drawn_BT: torch.Tensor, token: int) -> torch.Tensor:
    """Mean cross-entropy of masked tokens, token `i` from the state of token `i − 1` (§2, MNTP).

    Args:
      drawn_BT: the masked inputs.
      token: id that stands in their place.
    """
    hidden_BTD = states(model, rows.inputs.masked_fill(drawn_BT, token), rows.positions, rows.segment_ids)
    asked_BT = drawn_BT[:, 1:]
    return F.cross_entropy(model.lm_head(hidden_BTD[:, :-1][asked_BT]), rows.inputs[:, 1:][asked_BT])


def pooled(model: Any, rows: Rows[torch.Tensor], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of each segment's counted states `[B, count, D]`, and whether there is such a segment, bool `[B, count]`.

    What does not count, the token behind each text, is seen by none of it.
    """
    segments_BT = rows.segment_ids * (rows.weights > 0)
    hidden_BTD = states(model, rows.inputs, rows.positions, segments_BT)
    own_BST = (segments_BT[:, None, :] == torch.arange(1, count + 1)[None, :, None]).float()
    sizes_BS = own_BST.sum(-1)
    return own_BST @ hidden_BTD / sizes_BS.clamp(min=1)[..., None], sizes_BS > 0


def info_nce(anchors_ND: torch.Tensor, candidates_MD: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean InfoNCE over cosines (arXiv:1807.03748, eq. 4); candidate `i` is the positive of anchor `i`."""
    cosines_NM = F.normalize(anchors_ND, dim=-1) @ F.normalize(candidates_MD, dim=-1).T
    return F.cross_entropy(cosines_NM / temperature, torch.arange(len(anchors_ND)))


def simcse_loss(model: Any, rows: Rows[torch.Tensor], count: int, temperature: float) -> torch.Tensor:
    """Each text against itself under another dropout (arXiv:2104.08821, eq. 4)."""
    first_BSD, there_BS = pooled(model, rows, count)
    second_BSD, _ = pooled(model, rows, count)
    return info_nce(first_BSD[there_BS], second_BSD[there_BS], temperature)


def triplet_loss(model: Any, rows: Rows[torch.Tensor], count: int, temperature: float) -> torch.Tensor:
    """Anchors against all positives and all given negatives of the batch.

    Args:
      count: groups of a row, at most; each is three segments.
    """
    vectors_BSD, there_BS = pooled(model, rows, 3 * count)
    vectors_BG3D, there_BG = vectors_BSD.unflatten(1, (count, 3)), there_BS.unflatten(1, (count, 3)).all(-1)
    anchors_ND, positives_ND, negatives_ND = vectors_BG3D[there_BG].unbind(1)
    return info_nce(anchors_ND, torch.cat([positives_ND, negatives_ND]), temperature)


def loss_of(stage: MntpStage | ContrastiveStage, token: int, seed: int) -> Loss:
    """The loss of a stage of ours, of which `embedding_steps.py` has three.

    Args:
      token: id of the mask, where tokens are masked.
    """
    if isinstance(stage, MntpStage):
        generator, rate = torch.Generator().manual_seed(seed), stage.mask.rate
        return lambda model, rows: mntp_loss(model, rows, masked(rows, rate, generator), token)
    loss = simcse_loss if stage.form == "texts" else triplet_loss
    return lambda model, rows: loss(model, rows, stage.per_row, stage.contrastive.temperature)


def add_dropout(model: Any, rate: float) -> None:
    """Dropout of what each attention and MLP adds, while the model trains."""
    for layer in model.model.layers:
        for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
            part.register_forward_hook(lambda module, _, added: F.dropout(added, rate, module.training))


def multiple(step: int, steps: int, warmup: int, final: float) -> float:
    """The learning rate before a step in shares of its peak: linear warm-up, then a cosine to `final`."""
    progress = min(max((step - warmup) / max(steps - warmup, 1), 0.0), 1.0)
    return min(1.0, (step + 1) / max(warmup, 1)) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def train(model: Any, loss: Loss, batches: Iterable[Rows[np.ndarray]], config: TrainConfig) -> list[float]:
    """Trains all weights with Adam and clipped gradients; returns the loss of every step."""
    given, losses = config.optimizer, []
    if given.weight_decay or given.schedule.kind != "cosine":
        raise ValueError("only a cosine schedule without weight decay is written here")
    optimizer = torch.optim.Adam(model.parameters(), given.learning_rate, (given.b1, given.b2), given.eps)
    model.train()
    for step, batch in zip(range(config.steps), batches):
        rate = multiple(step, config.steps, given.schedule.warmup_steps, given.schedule.final)
        optimizer.param_groups[0]["lr"] = given.learning_rate * rate
        optimizer.zero_grad()
        value = loss(model, tensors(batch))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), given.clip_norm)
        optimizer.step()
        losses.append(value.item())
    model.eval()
    return losses


def tensors(rows: Rows[np.ndarray]) -> Rows[torch.Tensor]:
    """Rows as tensors, ids in int64."""
    made = (torch.from_numpy(np.array(x)) for x in rows)
    return Rows(*(x if x.is_floating_point() else x.long() for x in made))


@dataclasses.dataclass(frozen=True)
class TorchEmbedder:
    """What `embedding_tasks.Memory` asks of an embedding model: mean of the states, attention to both sides.

    Attributes:
      about: how vectors are made; no instruction, since none is learnt.
      batch: texts of a forward pass.
    """

    model: Any
    tokenizer: Tokenizer
    about: Embedding
    batch: int = 64

    def __call__(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Vectors of texts, the longest texts first.

        Raises:
          ValueError: an instruction.
        """
        if instruction:
            raise ValueError("no instruction is learnt here")
        read = [of_ids(self.tokenizer, ids, None, self.about.longest) for ids in self.tokenizer.encode_batch(texts)]
        values = np.empty((len(read), self.model.config.hidden_size), np.float32)
        order = sorted(range(len(read)), key=lambda place: -len(read[place].ids))
        for start in range(0, len(order), self.batch):
            places = order[start : start + self.batch]
            values[places] = self._vectors([read[place].ids for place in places])
        return Vectors(values, np.array([one.left_out for one in read]))

    def _vectors(self, ids: Sequence[np.ndarray]) -> np.ndarray:
        shape = len(ids), len(ids[0])  # the first is the longest
        inputs, there = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, own in enumerate(ids):
            inputs[row, : len(own)], there[row, : len(own)] = own, 1
        positions = np.broadcast_to(np.arange(shape[1]), shape)
        rows = Rows(inputs, inputs, there, positions, there.astype(np.float32), np.zeros(len(ids), np.int64))
        with torch.no_grad():
            return F.normalize(pooled(self.model, tensors(rows), 1)[0][:, 0], dim=-1).numpy()
