"""Contrastive losses on vectors: a text should be close to its positive and far from everything else.

All vectors are normalised here, so products are cosines. On a mesh the vectors of all devices are one
global array: an anchor's negatives are those of every device, and the compiler gathers the vectors, not the texts.
Letters: `N` anchors, `K` negatives given with each, `M` candidates, `D` dimensions of a vector.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from kanana_jax.parallel.sharding import constrain

Tree = TypeVar("Tree")
_LEAST = 1e-12  # below which a squared length counts as this: a vector of zeros stays zeros, without NaN in gradients


class Texts(NamedTuple):
    """Vectors of groups of texts: an anchor, its positive and its negatives.

    Attributes:
      anchors, positives: `[N, D]`.
      negatives: `[N, K, D]`; K may be 0.
      there: bool `[N]`: whether the group exists; others are neither learnt nor candidates.
      negatives_there: bool `[N, K]`, whether the negative exists.
      keys: uint32 `[N, 2 + K]`, equal for equal texts (`text_keys`): anchor, positive, negatives. None: no two
        texts are treated as equal.
    """

    anchors: jax.Array
    positives: jax.Array
    negatives: jax.Array
    there: jax.Array
    negatives_there: jax.Array
    keys: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig:
    """A contrastive loss.

    Attributes:
      temperature: τ, by which cosines are divided; 0.05 is SimCSE's (arXiv:2104.08821, §3) and LLM2Vec's scale of 20
        (arXiv:2404.05961).
      in_batch: whether the positives of other anchors, and the negatives given with them, are negatives too.
      both_ways: whether each positive must also find its anchor among all anchors; both losses are averaged.
      same_side: whether other anchors are negatives of an anchor, and other positives of its positive
        (arXiv:2506.05176, §3).
      false_negative: a candidate whose cosine is above the positive's by more than this is left out as a probable
        positive (arXiv:2506.05176, §3: 0.1); None: none is. Texts equal to the anchor or its positive are
        always left out, and groups that share such a text.
      hardness: α, gives the negatives of an anchor the weight e^(α·cosine) in its sum (arXiv:2509.20354, §2:
        5).
      matryoshka: lengths of prefixes of a vector that are trained like the whole vector; losses
        are added (arXiv:2205.13147, eq. 1 with weights of 1).
      spread: weight of the spread-out term (arXiv:1708.06320, its second moment): the mean squared cosine of
        different anchors, plus that of different positives.
    """

    temperature: float = 0.05
    in_batch: bool = True
    both_ways: bool = False
    same_side: bool = False
    false_negative: float | None = None
    hardness: float = 0.0
    matryoshka: tuple[int, ...] = ()
    spread: float = 0.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(f"contrastive.temperature must be above 0, not {self.temperature}")
        if self.false_negative is not None and self.false_negative < 0:
            raise ValueError("contrastive.false_negative must be at least 0: a distance above the positive's cosine")
        if self.hardness < 0 or self.spread < 0:
            raise ValueError("contrastive.hardness and contrastive.spread must not be negative")
        if any(size < 1 for size in self.matryoshka):
            raise ValueError("contrastive.matryoshka must list lengths of at least 1")
        if not self.in_batch and (self.both_ways or self.same_side):
            raise ValueError("contrastive.both_ways and contrastive.same_side need in_batch: they compare anchors")

    def check(self, dim: int) -> None:
        """Refuses prefixes that are not shorter than vectors of `dim` dimensions.

        Raises:
          ValueError: a prefix that is not shorter.
        """
        if any(size >= dim for size in self.matryoshka):
            raise ValueError(
                f"contrastive.matryoshka must list lengths below the vectors' {dim}, which is always trained"
            )


class Contrast(NamedTuple):
    """Losses by anchor, float32 `[N]` each; 0 where there is no anchor.

    Attributes:
      loss: the quantity to minimise: the sum of the prefixes' losses and the spread-out term.
      found: whether the anchor's positive is nearer than every candidate, by the whole vectors.
      cosine: cosine of anchor and positive.
      candidates: number of negatives that the anchor was compared with.
    """

    loss: jax.Array
    found: jax.Array
    cosine: jax.Array
    candidates: jax.Array


def unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1, float32 `[…, D]`; zeros stay zeros."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), _LEAST))


def contrast(config: ContrastiveConfig, texts: Texts) -> Contrast:
    """The loss of every anchor (InfoNCE, arXiv:1807.03748, eq. 4).

    −log( e^(s⁺/τ) / (e^(s⁺/τ) + Σ w·e^(s/τ)) ), with the cosines s⁺ of the positive and s of the candidates: the
    negatives given with the anchor, weighted by `hardness`, and with `in_batch` all texts of other anchors' groups.
    """
    dims = (texts.anchors.shape[-1], *config.matryoshka)
    whole, *prefixes = (_info_nce(config, _prefix(texts, size)) for size in dims)
    return whole._replace(loss=sum((part.loss for part in prefixes), whole.loss))


def _prefix(texts: Texts, size: int) -> Texts:
    anchors, positives, negatives = (unit(x[..., :size]) for x in texts[:3])
    return texts._replace(anchors=anchors, positives=positives, negatives=negatives)


def _info_nce(config: ContrastiveConfig, texts: Texts) -> Contrast:
    (N, K, D), keys = texts.negatives.shape, texts.keys
    positive_N = (texts.anchors * texts.positives).sum(-1)
    given_NK = jnp.einsum("ND,NKD->NK", texts.anchors, texts.negatives)
    given_there_NK, others_NN = texts.negatives_there, ~jnp.eye(N, dtype=bool) & texts.there[None, :]
    foreign_NM = jnp.repeat(others_NN, K, axis=1) & texts.negatives_there.reshape(1, N * K)
    if keys is not None:
        # A candidate that shares its anchor or positive with this group belongs to it.
        own_N2, negative_NK = keys[:, :2], keys[:, 2:]
        given_there_NK = given_there_NK & (own_N2[:, :, None] != negative_NK[:, None, :]).all(1)
        others_NN &= (own_N2[:, None, :, None] != own_N2[None, :, None, :]).all((2, 3))
        foreign_NM &= (own_N2[:, :, None] != negative_NK.reshape(1, 1, N * K)).all(1)
    forward = [(given_NK, given_there_NK, config.hardness * jax.lax.stop_gradient(given_NK))]
    if config.in_batch:
        forward.append(_against(texts.anchors, texts.positives, others_NN))
        forward.append(_against(texts.anchors, texts.negatives.reshape(N * K, D), foreign_NM))
    if config.same_side:
        forward.append(_against(texts.anchors, texts.anchors, others_NN))
        forward.append(_against(texts.positives, texts.positives, others_NN))
    loss_N, best_N, count_N = _loss(config, positive_N, forward)
    if config.both_ways:
        back = [_against(texts.positives, texts.anchors, others_NN)]
        loss_N = (loss_N + _loss(config, positive_N, back)[0]) / 2
    if config.spread:
        spread = spread_out(texts.anchors, texts.there) + spread_out(texts.positives, texts.there)
        loss_N = loss_N + config.spread * spread
    counted = [loss_N, (positive_N > best_N).astype(jnp.float32), positive_N, count_N]
    return Contrast(*(jnp.where(texts.there, value, 0.0) for value in counted))


def _against(own_ND: jax.Array, other_MD: jax.Array, keep_NM: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
    """Cosines of each anchor with candidates of all devices, which of them count, and no further weight."""
    own_ND, other_MD = constrain(own_ND, "batch", None), constrain(other_MD, None, None)
    return jnp.einsum("ND,MD->NM", own_ND, other_MD), keep_NM, 0.0


def _loss(config: ContrastiveConfig, positive_N: jax.Array, parts: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The loss, the highest cosine of a candidate, and the number of candidates counted, `[N]` each."""
    logits, best, count = [positive_N[:, None] / config.temperature], [], []
    for cosines_NM, keep_NM, weight in parts:
        if config.false_negative is not None:
            keep_NM = keep_NM & (cosines_NM <= jax.lax.stop_gradient(positive_N)[:, None] + config.false_negative)
        logits.append(jnp.where(keep_NM, cosines_NM / config.temperature + weight, -jnp.inf))
        best.append(jnp.where(keep_NM, cosines_NM, -jnp.inf).max(axis=1, initial=-jnp.inf))
        count.append(keep_NM.sum(axis=1))
    loss_N = jax.nn.logsumexp(jnp.concatenate(logits, axis=1), axis=1) - logits[0][:, 0]
    return loss_N, jnp.stack(best).max(axis=0), sum(count).astype(jnp.float32)


def spread_out(vectors: jax.Array, there: jax.Array) -> jax.Array:
    """The mean squared product of two distinct existing vectors, a scalar (arXiv:1708.06320).

    Args:
      vectors: `[N, D]` of length 1.
      there: bool `[N]`.
    """
    vectors = jnp.where(there[:, None], vectors, 0.0)
    # Σ_ij (x_i·x_j)² is the squared norm of Σ x·xᵀ: D × D numbers in place of N × N.
    moment_DD = jnp.einsum("ND,NE->DE", vectors, vectors)
    alone = jnp.square(jnp.square(vectors).sum(-1)).sum()
    n = there.sum().astype(jnp.float32)
    return (jnp.square(moment_DD).sum() - alone) / jnp.maximum(n * (n - 1), 1.0)


def matching(students: jax.Array, teachers: jax.Array, there: jax.Array) -> jax.Array:
    """Squared distances of vectors to a teacher's, `[N]` (EmbedDistill, arXiv:2301.12005); 0 where there is no text.

    Args:
      students, teachers: `[N, D]`, normalised here; of a longer teacher the first D numbers count, as for a
        Matryoshka model (arXiv:2509.20354, §2).
      there: bool `[N]`.
    """
    aimed = jax.lax.stop_gradient(unit(teachers[..., : students.shape[-1]]))
    return jnp.where(there, jnp.square(unit(students) - aimed).sum(-1), 0.0)


def text_keys(tokens: jax.Array, counted: jax.Array) -> jax.Array:
    """Keys that are equal for equal texts, uint32 `[…]` (a polynomial of the tokens, as Rabin-Karp's, mod 2³²).

    Args:
      tokens: int32 `[…, T]`.
      counted: bool `[…, T]`: the tokens that belong to the text.
    """
    mixed = (tokens.astype(jnp.uint32) + 1) * jnp.uint32(2654435761)
    mixed = mixed ^ (mixed >> 15)
    rank = jnp.cumsum(counted, axis=-1).astype(jnp.uint32)
    mixed = (mixed + rank * jnp.uint32(2246822519)) * jnp.uint32(3266489917)
    return jnp.where(counted, mixed ^ (mixed >> 13), jnp.uint32(0)).sum(-1, dtype=jnp.uint32)


def by_chunks(encode: Callable[[Tree], Any], inputs: Tree, chunks: int) -> Any:
    """`encode(inputs)`, of which only the outputs are kept for the backward pass: GradCache (arXiv:2101.06983, §3).

    The paper computes vectors without activations, the loss's gradients by these vectors, and then each chunk again
    with activations, through which the vectors' gradients reach the parameters. Rematerialisation by chunk is the same
    computation, and the gradients are always those of the whole batch: also through random keys, masks and prefixes,
    and everything that `encode` closes over. Chunk `i` takes rows `i::chunks`, so every device keeps its own.

    Args:
      encode: row by row: a tree of arrays `[B, …]` → a tree of arrays `[B, …]`.
      chunks: a divisor of B; 1: all activations are kept.
    """
    if chunks == 1:
        return encode(inputs)
    cut = jax.tree.map(lambda x: x.reshape(x.shape[0] // chunks, chunks, *x.shape[1:]).swapaxes(0, 1), inputs)
    found = jax.lax.map(jax.checkpoint(encode, prevent_cse=False), cut)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), found)
