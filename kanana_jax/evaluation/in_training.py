"""Evaluation tasks within a stage: of its own parameters during training, or of finished models."""

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

_MOST_PARTS = 8  # the parts of a task with more are not reported separately


@dataclasses.dataclass(frozen=True)
class TasksConfig:
    """Tasks that a stage evaluates, and how often.

    Attributes:
      names: names of tasks and groups, and files of own questions, as for `kanana eval --tasks`.
      every: steps between evaluations; 0: only at the beginning and at the end, where tasks are always evaluated.
      limit: maximum number of documents per task, or per part of a task.
      data_dir: folder of local files; empty: none are read.
      batch_size: rows per forward pass.
      chat: whether prompts are in the model's chat format.
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
    """A function from parameters to `{task: {metric: value, metric_stderr: value}}`, with the code of `kanana eval`.

    Raises:
      ConfigError, UserError: see `asker`.
    """
    asked = asker(config, seed)

    def ask(params: Params) -> dict[str, dict[str, float]]:
        found = asked(Session(model, params, tokenizer, mesh))["results"]
        shown = [n for n, result in found.items() if result.get("parts", 0) or not _is_part(n, found)]
        return {name: {k: v for k, v in found[name].items() if isinstance(v, float)} for name in shown}

    return ask


def asker(config: TasksConfig, seed: int) -> Callable[[Session], dict[str, Any]]:
    """A function from a model to what `evaluation.run.evaluate` returns; loads the tasks now, to fail before training.

    Raises:
      ConfigError: a task is unknown, a file is missing, or there are several processes (answers are not gathered).
      UserError: the harness or a package is not installed, or there is no sandbox and a task needs one.
    """
    if jax.process_count() > 1:
        raise ConfigError(
            f"config 'tasks' of a stage asks {', '.join(config.names)}, which needs one process, but there are "
            f"{jax.process_count()}: leave it out, and evaluate the stage's checkpoint afterwards"
        )
    try:
        from kanana_jax.evaluation import run
        from kanana_jax.evaluation.harness import HarnessModel
    except ImportError as error:
        raise UserError(f"tasks need lm-evaluation-harness ({error}): {install('eval')}") from error
    data_dir = place(config.data_dir) if config.data_dir else None
    tasks = run.find(config.names, data_dir, chat=config.chat)

    def ask(session: Session) -> dict[str, Any]:
        asked = HarnessModel(session, batch_size=config.batch_size, seed=seed)
        return run.evaluate(asked, config.names, limit=config.limit, chat=config.chat, seed=seed, found=tasks)

    return ask


def _is_part(name: str, found: dict[str, dict[str, Any]]) -> bool:
    """Whether a task is a part of one with more than `_MOST_PARTS` parts."""
    return any(name.startswith(f"{n}_") and r.get("parts", 0) > _MOST_PARTS for n, r in found.items())
