"""Search for a shape to prune to, as in Minitron (arXiv:2407.14679, §2.3), with early stopping of losers.

Shapes within a budget, up to a maximum number, are ranked by their loss after short distillations of growing
length; after each, the worse part is dropped (successive halving, arXiv:1502.07943), since rankings settle early
(arXiv:2502.18934, §2.3).
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from kanana_jax.errors import ConfigError
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture
from kanana_jax.parallel import chips
from kanana_jax.surgery import prune
from kanana_jax.surgery.importance import ImportanceConfig
from kanana_jax.surgery.prune import PruneConfig

# budget → unit, for messages
BUDGETS = {"parameters": "", "flops_per_token": " FLOPs", "memory_bytes": " bytes", "latency_s": " s"}


@dataclasses.dataclass(frozen=True)
class Budget:
    """The limits of a pruned model's costs; 0 leaves a cost free.

    Attributes:
      parameters: total number.
      flops_per_token: forward, exact (`models/counts.py`), at `context`.
      memory_bytes: weights and KV cache of `batch` sequences of `context` tokens.
      latency_s: seconds of a decoding step of that batch on `chip`, by its roofline: the larger of FLOPs over peak and
        weights and cache over bandwidth.
      tolerance: by how much a shape's cost may differ from the budget (Minitron: 5%).
      context, batch, bytes_per_value, chip: the settings of these costs.
    """

    parameters: int = 0
    flops_per_token: float = 0.0
    memory_bytes: int = 0
    latency_s: float = 0.0
    tolerance: float = 0.05
    context: int = 4096
    batch: int = 1
    bytes_per_value: int = 2
    chip: str = "TPU v5e"

    def __post_init__(self):
        if not any(getattr(self, name) > 0 for name in BUDGETS) or any(getattr(self, name) < 0 for name in BUDGETS):
            raise ValueError(f"name a budget: {', '.join(BUDGETS)}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be a share in [0, 1), not {self.tolerance}")
        if self.chip not in chips.BANDWIDTH:
            raise ValueError(f"chip must be one of {', '.join(chips.BANDWIDTH)}, not '{self.chip}'")


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Candidate shapes (grid and bounds of NVIDIA Model-Optimizer's guide).

    Attributes:
      embed_dim, mlp_dim, layers: sizes are multiples of these; the model's own size is always one.
      heads_per_group: query heads of a KV group are multiples of this.
      max_width_cut, max_depth_cut: largest share of a size that may be removed.
      tie_embeddings: whether every shape ties its embeddings.
    """

    embed_dim: int = 256
    mlp_dim: int = 512
    layers: int = 2
    heads_per_group: int = 1
    max_width_cut: float = 0.4
    max_depth_cut: float = 0.2
    tie_embeddings: bool = False

    def __post_init__(self):
        if min(self.embed_dim, self.mlp_dim, self.layers, self.heads_per_group) < 1:
            raise ValueError("the steps of a search space must be at least 1")
        if not (0 <= self.max_width_cut < 1 and 0 <= self.max_depth_cut < 1):
            raise ValueError("max_width_cut and max_depth_cut must be shares in [0, 1)")


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The section `search` of a stage; `train` is the short distillation, whose end is the last rung.

    Attributes:
      candidates: number of shapes to try (Minitron: 15 to 18).
      rungs: steps after which candidates are compared.
      keep: share of candidates kept after each rung but the last.
      importance, seq_len: as in a pruning stage.
    """

    budget: Budget
    space: SearchSpace = SearchSpace()
    candidates: int = 16
    rungs: tuple[int, ...] = (100, 200, 400)
    keep: float = 0.5
    importance: ImportanceConfig = ImportanceConfig()
    seq_len: int = 1024

    def __post_init__(self):
        if self.candidates < 1 or not 0 < self.keep <= 1:
            raise ValueError("candidates must be at least 1, and keep a share in (0, 1]")
        if not self.rungs or self.rungs[0] < 1 or list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"rungs must be ascending numbers of steps, not {self.rungs}")


def costs(a: Architecture, budget: Budget) -> dict[str, float]:
    """A model's costs, by the names of `BUDGETS`."""
    cached = counts.cached_tokens(a, budget.context)
    cache = 2 * a.num_kv_heads * a.head_dim * cached * budget.batch
    memory = budget.bytes_per_value * (counts.parameters(a) + cache)
    # A step attends to the whole context; training sees half of it on average.
    flops = 2.0 * counts.matmul_parameters(a) + 4.0 * a.num_heads * a.head_dim * cached
    # An embedding used only for look-up is not read.
    read = memory - (0 if a.tied_embeddings else budget.bytes_per_value * a.vocab_size * a.embed_dim)
    return {
        "parameters": counts.parameters(a),
        "flops_per_token": counts.forward_flops_per_token(a, budget.context),
        "memory_bytes": memory,
        "latency_s": max(budget.batch * flops / chips.BF16_PEAK[budget.chip], read / chips.BANDWIDTH[budget.chip]),
    }


def candidates(before: Architecture, config: SearchConfig) -> list[PruneConfig]:
    """The shapes to try, the widest first.

    Raises:
      ConfigError: no shape is within the budget; names the nearest.
    """
    stated = {name: getattr(config.budget, name) for name in BUDGETS if getattr(config.budget, name)}
    found, nearest = [], None
    for shape in shapes(before, config.space):
        after = prune.shape(before, shape)
        cost = costs(after, config.budget)
        shares = [cost[name] / limit for name, limit in stated.items()]
        if 1 - config.budget.tolerance <= max(shares) <= 1 + config.budget.tolerance:
            found.append(shape)
        if nearest is None or abs(math.log(max(shares))) < abs(math.log(nearest[0])):
            nearest = max(shares), after, cost
    if not found:
        wanted = ", ".join(f"{name} {limit:,.6g}{BUDGETS[name]}" for name, limit in stated.items())
        if nearest is None:
            raise ConfigError("config 'search.space' has no smaller shape: use smaller steps or larger cuts")
        _, after, cost = nearest
        has = ", ".join(f"{name} {cost[name]:,.6g}{BUDGETS[name]}" for name in stated)
        raise ConfigError(
            f"no shape of config 'search.space' is within {wanted} (± {config.budget.tolerance:.0%}): the nearest, "
            f"{label(after)}, has {has}: change search.budget, or the steps and cuts of search.space"
        )
    return spread(before, found, config.candidates)


def shapes(before: Architecture, space: SearchSpace) -> list[PruneConfig]:
    """Every shape of the space except the model's own, the largest sizes first."""

    def sizes(old: int, step: int, cut: float) -> list[int]:
        least = math.ceil(old * (1 - cut) - 1e-9)
        return [old, *(size for size in range(old - old % step, 0, -step) if least <= size < old)]

    groups = sizes(before.group_size, space.heads_per_group, space.max_width_cut)
    every = itertools.product(
        sizes(before.num_layers, space.layers, space.max_depth_cut),
        sizes(before.embed_dim, space.embed_dim, space.max_width_cut),
        sizes(before.mlp_dim, space.mlp_dim, space.max_width_cut),
        [before.num_kv_heads * group for group in groups],
    )
    own = (before.num_layers, before.embed_dim, before.mlp_dim, before.num_heads)
    tie = space.tie_embeddings and not before.tied_embeddings
    return [
        PruneConfig(embed_dim=embed, mlp_dim=mlp, num_heads=heads, num_layers=layers, tie_embeddings=tie)
        for layers, embed, mlp, heads in every
        if tie or (layers, embed, mlp, heads) != own
    ]


def spread(before: Architecture, found: Sequence[PruneConfig], count: int) -> list[PruneConfig]:
    """At most `count` shapes that differ most: each next one is farthest, in log sizes, from those already chosen."""

    def point(shape: PruneConfig) -> tuple[float, ...]:
        after = prune.shape(before, shape)
        return tuple(math.log(x) for x in (after.num_layers, after.embed_dim, after.mlp_dim, after.num_heads))

    points = [point(shape) for shape in found]
    taken = [0]
    while len(taken) < min(count, len(found)):
        taken.append(max(range(len(found)), key=lambda i: (min(math.dist(points[i], points[j]) for j in taken), -i)))
    return [found[i] for i in sorted(taken)]


def label(a: Architecture) -> str:
    """A candidate's name: layers, channels, neurons, heads."""
    return f"l{a.num_layers}-d{a.embed_dim}-f{a.mlp_dim}-h{a.num_heads}"


def survivors(losses: Mapping[str, float], keep: float) -> list[str]:
    """The best share of the candidates, at least one, the best first; the first among equals."""
    ranked = sorted(losses, key=lambda name: (not math.isfinite(losses[name]), losses[name]))
    return ranked[: max(1, math.ceil(keep * len(ranked)))]
