"""Evaluation of a model on tasks with lm-evaluation-harness, with results in our format."""

import contextlib
import functools
import json
import logging
import pathlib
import random
import sys
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import lm_eval.api.task
import lm_eval.evaluator
import numpy as np
from tqdm import tqdm

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.evaluation import results as summaries
from kanana_jax.evaluation import sandbox
from kanana_jax.evaluation import tasks as task_files
from kanana_jax.evaluation.harness import HarnessModel
from kanana_jax.evaluation.harness_tasks import config_of, leaves

log = logging.getLogger("kanana")
Json = dict[str, Any]


def evaluate(
    model: HarnessModel,
    names: Sequence[str],
    *,
    data_dir: pathlib.Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    chat: bool = False,
    seed: int = 0,
    found: task_files.Loaded | None = None,
) -> Json:
    """Evaluates a model on tasks.

    Args:
      names: names of our tasks (`tasks/*.yaml`) or of the harness's, or files of own questions.
      data_dir: folder of local files; None: none are read.
      limit: maximum number of documents per task, or per part of a task that has several.
      shots: number of examples in the prompt, overriding the task's own.
      chat: whether prompts are in the model's chat format.
      seed: seed for sampling examples.
      found: the result of an earlier call of `find` for these names.

    Returns:
      `{"results": {task: {metric: value, metric_stderr: value, n, shots, version, chat, prompts, cut}}, "documents":
      {task: {metric: [value of each document]}}, "samples": [line of each document, see `results.said`]}`. `prompts` is
      a hash of all prompts and targets, `cut` the number of prompts that were truncated at their beginning.

    Raises:
      ConfigError: a task is unknown, files are missing or damaged, there are fewer examples than shots, or a task runs
        generated code outside the sandbox.
      UserError: a data set or package is not available, or the machine has no sandbox and a task needs one.
      Unscored: any error after the model has answered, with its answers.
    """
    found = found or find(names, data_dir, chat=chat)
    try:
        with _no_metric_from_this_folder(found.specs):
            loaded = found.manager.load(found.specs)
    except (OSError, ImportError) as error:  # no access to a hub, or a package that a task imports is missing
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{', '.join(names)} cannot be loaded ({reason}): give --data-dir where docs/evaluation.md names a file, "
            "or download the data set or install the package"
        ) from error
    for name, task in loaded["tasks"].items():
        if task.config.unsafe_code:
            raise ConfigError(f"task '{name}' runs code written by the model in this process, which is never allowed")
    groups = found.parts | {g: list(members) for g, members in loaded.get("group_map", {}).items() if members}
    for name, number in found.shots.items():
        for leaf in _leaves([name], groups):
            loaded["tasks"][leaf].set_config("num_fewshot", number)
    if shots:
        _refuse_shots([n for n, task in loaded["tasks"].items() if task.config.num_fewshot == 0])
    for name, task in loaded["tasks"].items():
        own = task.config.num_fewshot
        if own != 0:  # a task with num_fewshot 0 cannot take examples
            task.set_config("num_fewshot", (own or 0) if shots is None else shots)
        task.set_fewshot_seed(seed)
        _refuse_too_few(name, task)
    cut: dict[str, set[int]] = getattr(model, "cut", {})  # other models do not count truncated prompts
    # `simple_evaluate` would do the above too, but queries git and torch for a report that is not used here.
    with _random_state_kept(), _quiet_in_a_pipe(), _no_metric_from_this_folder(found.specs):
        random.seed(seed)
        np.random.seed(seed)
        cut.clear()
        with _answers_kept(loaded["tasks"], cut):
            raw = lm_eval.evaluator.evaluate(
                lm=model,
                task_dict={"tasks": loaded["tasks"], "groups": {}, "group_map": {}},
                limit=limit,
                apply_chat_template=chat or found.chat,
                bootstrap_iters=0,
                log_samples=True,
            )
    whole = {name: _leaves(members, groups) for name, members in groups.items()}
    return summaries.summary(raw, loaded["tasks"], whole, cut, chat or found.chat)


def find(
    names: Sequence[str], data_dir: pathlib.Path | None, shots: int | None = None, chat: bool = False
) -> task_files.Loaded:
    """Finds and checks the tasks, so that mistakes are reported before a long run.

    Args:
      shots: number of examples for `evaluate`; refused if a task takes none.
      chat: as for `evaluate`.

    Raises:
      ConfigError, UserError: see `evaluate`.
    """
    for name in ("lm_eval", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    found = task_files.load(names, data_dir, chat)
    if shots:
        _refuse_shots(_without_examples(found))
    if found.runs_code:
        sandbox.check()
    return found


def _refuse_shots(fixed: Sequence[str]) -> None:
    """Raises ConfigError if there are tasks that take no examples."""
    if fixed:
        few = ", ".join(fixed[:5]) + (f" and {len(fixed) - 5} more" if len(fixed) > 5 else "")
        raise ConfigError(
            f"--shots does nothing for {few}: such a task has no place for examples, or brings its own: leave --shots "
            "out, or name only the other tasks"
        )


def _without_examples(found: task_files.Loaded) -> list[str]:
    """The tasks whose config says that they take no examples."""
    configs: list[Json] = []
    for spec in found.specs:
        configs += [spec] if isinstance(spec, dict) else [config_of(leaf) for leaf in leaves(spec, found.manager)]
    return [str(config.get("task")) for config in configs if config.get("num_fewshot") == 0]


def _refuse_too_few(name: str, task: Any) -> None:
    """Raises ConfigError if a task has fewer examples than shots; the harness would only fail during the run."""
    wanted = task.config.num_fewshot
    if not wanted or not isinstance(task, lm_eval.api.task.ConfigurableTask):
        return
    asked = task.config.test_split or task.config.validation_split
    own = task.fewshot_cfg.split is not None and task.fewshot_cfg.split == asked
    rows = [json.dumps(row, sort_keys=True, default=str) for row in task.sampler.df]
    there = len(rows) - (max(Counter(rows).values(), default=0) if own else 0)  # a document is not its own example
    if there < wanted:
        raise ConfigError(
            f"task '{name}' takes {wanted} examples and has {there}: lower --shots or add rows to its file"
        )


@contextlib.contextmanager
def _quiet_in_a_pipe() -> Generator[None]:
    """Hides the harness's progress bar if stderr is not a terminal.

    The harness has no option for it, and tqdm reads its environment variable only at import.
    """
    names = vars(lm_eval.api.task)
    kept = names["tqdm"]
    names["tqdm"] = functools.partial(tqdm, disable=not sys.stderr.isatty())
    try:
        yield
    finally:
        names["tqdm"] = kept


@contextlib.contextmanager
def _no_metric_from_this_folder(specs: Sequence[Any]) -> Generator[None]:
    """Keeps tasks of the harness from running local code: `evaluate.load("bleu")` would run ./bleu/bleu.py."""
    if all(isinstance(spec, dict) for spec in specs):
        yield
        return
    import evaluate as library

    names = vars(library)
    kept = names["load"]

    def load(path: str, *args: Any, **kwargs: Any) -> Any:
        script = pathlib.Path(path) / f"{pathlib.Path(path).name}.py"
        if script.is_file():
            raise ConfigError(f"{script.absolute()} would be run as the metric '{path}': start in another folder")
        return kept(path, *args, **kwargs)

    names["load"] = load
    try:
        yield
    finally:
        names["load"] = kept


@contextlib.contextmanager
def _answers_kept(tasks: Mapping[str, Any], cut: Mapping[str, set[int]]) -> Generator[None]:
    """Raises `Unscored` for an error that would lose answers; they cost hours, and a scorer may lack only a file."""
    try:
        yield
    except Exception as error:
        names = [name for name in sorted(tasks) if tasks[name].instances]
        lines = [line for n in names for line in summaries.answered(n, tasks[n].instances, cut.get(n, set()))]
        if not lines:
            raise
        raise summaries.Unscored(error, lines) from error


@contextlib.contextmanager
def _random_state_kept() -> Generator[None]:
    """Restores the global random states, since the harness seeds them and a training run may continue afterwards."""
    kept = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])


def _leaves(members: Sequence[str], groups: dict[str, list[str]]) -> list[str]:
    return [leaf for m in members for leaf in (_leaves(groups[m], groups) if m in groups else [m])]
