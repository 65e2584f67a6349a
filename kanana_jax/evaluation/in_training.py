"""Tasks that a stage asks models: its own parameters while it trains, or finished ones."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import ConfigError, UserError, install
from kanana_jax.files import place
from kanana_jax.inference.session import Session
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params

_MOST_PARTS = 8  # of a task whose parts are reported


@dataclasses.dataclass(frozen=True)
class TasksConfig:
    """Tasks that a stage evaluates, and how often.

    Attributes:
      names: of tasks, groups and files of own questions, as for `kanana eval --tasks`.
      every: steps; 0: at the beginning and at the end only, which is always done.
      limit: documents per task, or part of one.
      data_dir: where local files lie; empty: none are read.
      batch_size: rows a forward pass.
      chat: whether to ask in the model's chat format.
    """

    names: tuple[str, ...]
    every: int = 0
    limit: int | None = None
    data_dir: str = ""
    batch_size: int = 16
    chat: bool = False

    def __post_init__(self):
        if not self.names or self.every < 0 or (self.limit is not None and self.limit < 1):
            raise ValueError("tasks need at least one name, every of at least 0 and limit of at least 1")


def make_ask(
    config: TasksConfig, model: Model, tokenizer: Tokenizer, mesh: Mesh, seed: int
) -> Callable[[Params], dict[str, dict[str, float]]]:
    """Parameters → `{task: {metric: value, metric_stderr: value}}`, by the code of `kanana eval`.

    Raises:
      ConfigError, UserError: see `asker`.
    """
    asked = asker(config, seed)

    def ask(params: Params) -> dict[str, dict[str, float]]:
        found = asked(Session(model, params, tokenizer, mesh))
        shown = [n for n, result in found.items() if result.get("parts", 0) or not _is_part(n, found)]
        return {name: {k: v for k, v in found[name].items() if isinstance(v, float)} for name in shown}

    return ask


def asker(config: TasksConfig, seed: int) -> Callable[[Session], dict[str, dict[str, Any]]]:
    """Model → `results` of `kanana eval`.

    Fails now rather than after an hour of training.

    Raises:
      ConfigError: unknown tasks, files that are missing, several processes (their answers would have to be gathered).
      UserError: the harness or a package is not installed, or there is no sandbox for tasks that need one.
    """
    if jax.process_count() > 1:
        raise ConfigError(
            f"config 'tasks' of a stage asks {', '.join(config.names)}, which needs one process, there are "
            f"{jax.process_count()}: leave it out, and evaluate the stage's checkpoint afterwards"
        )
    try:
        from kanana_jax.evaluation import run
        from kanana_jax.evaluation.harness import HarnessModel
    except ImportError as error:
        raise UserError(f"tasks need lm-evaluation-harness ({error}): {install('eval')}") from error
    data_dir = place(config.data_dir) if config.data_dir else None
    tasks = run.find(config.names, data_dir, chat=config.chat)

    def ask(session: Session) -> dict[str, dict[str, Any]]:
        asked = HarnessModel(session, batch_size=config.batch_size, seed=seed)
        answers = run.evaluate(asked, config.names, limit=config.limit, chat=config.chat, seed=seed, found=tasks)
        return answers["results"]

    return ask


def _is_part(name: str, found: dict[str, dict[str, Any]]) -> bool:
    """Returns whether it is a part of a task of many."""
    return any(name.startswith(f"{n}_") and r.get("parts", 0) > _MOST_PARTS for n, r in found.items())
