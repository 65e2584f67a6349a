"""A run's first step is compiled while its sources and vocabulary are made: neither needs the other."""

from concurrent import futures

from jax.sharding import Mesh

from kanana_jax.plan import stage as plan_stage
from kanana_jax.recipe.config import RecipeConfig, StageConfig
from kanana_jax.training.loop import Ahead


def compile_ahead(
    recipe: RecipeConfig, stages: dict[str, StageConfig], unfinished: list[str], mesh: Mesh
) -> dict[str, Ahead]:
    """Begins to compile the step of the stage that comes next, in a thread of its own.

    Args:
      unfinished: stages that are to be run, in order.

    Returns:
      its compiled step, by its name; nothing where the shapes of that stage do not follow from the config alone.

    Raises:
      ConfigError: a mesh that does not divide the model or the batch.
    """
    if not unfinished or stages[unfinished[0]].kind != "pretrain" or stages[unfinished[0]].start != "scratch":
        return {}
    step = plan_stage.prepare(unfinished[0], recipe, stages, mesh).programs[-1]
    # Not waited for at the end: a source that cannot be read says so at once.
    thread = futures.ThreadPoolExecutor(1, thread_name_prefix="compile-ahead")
    compiling = thread.submit(lambda: step.trace().lower().compile())
    thread.shutdown(wait=False)
    return {unfinished[0]: compiling}
