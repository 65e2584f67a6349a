"""The first training step of a run, compiled while its sources and vocabulary are prepared."""

from collections.abc import Sequence
from concurrent import futures

from kanana_jax.stages import KINDS
from kanana_jax.stages.kind import Shapes
from kanana_jax.training.loop import Ahead


def compile_ahead(next_stages: Sequence[str], shapes: Shapes) -> dict[str, Ahead]:
    """Starts to compile the steps of stages, each in its own thread.

    Returns:
      the steps being compiled, by stage; none for a stage whose shapes depend on other models or folders.

    Raises:
      ConfigError: a mesh that does not divide the model or the batch.
    """
    ahead: dict[str, Ahead] = {}
    for name in next_stages:
        stage = shapes.stages[name]
        programs = KINDS[stage.kind].programs
        if programs is None or stage.references():
            continue
        step = programs(name, stage, shapes).step
        # Not joined at exit, so that an unreadable source is reported at once.
        thread = futures.ThreadPoolExecutor(1, thread_name_prefix="compile-ahead")
        ahead[name] = thread.submit(lambda step=step: step.trace().lower().compile())
        thread.shutdown(wait=False)
    return ahead
