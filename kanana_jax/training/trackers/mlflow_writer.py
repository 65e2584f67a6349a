"""MLflow."""

import time

from kanana_jax.training.metrics import Line, scalars
from kanana_jax.training.trackers.run import TrackedRun

# Limits of MLflow's REST API: length of a parameter's value, and parameters per call.
_VALUE, _BATCH = 6000, 100
_OURS = "kanana.id"


class MLflow:
    """A run of MLflow, in the store that `MLFLOW_TRACKING_URI` names.

    When a stage resumes, steps that the run already has are not sent again.
    """

    def __init__(self, run: TrackedRun):
        import mlflow

        self._client = mlflow.MlflowClient()
        experiment = self._client.get_experiment_by_name(run.project)
        place = experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        found = self._client.search_runs([place], f"tags.`{_OURS}` = '{run.id}'", max_results=1)
        self._done = {"step": -1, "evaluated_step": -1}
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            self._done |= {key: int(found[0].data.metrics.get(key, -1)) for key in self._done}
            return
        tags = {_OURS: run.id, "mlflow.runName": run.name, "group": run.group}
        self._id = self._client.create_run(place, tags=tags).info.run_id
        parameters = [
            mlflow.entities.Param(key, str(value)[:_VALUE]) for key, value in sorted(flattened(run.config).items())
        ]
        for i in range(0, len(parameters), _BATCH):
            self._client.log_batch(self._id, params=parameters[i : i + _BATCH])

    def write(self, line: Line) -> None:
        from mlflow.entities import Metric

        kind, step, now = "evaluated_step" if "eval" in line else "step", line["step"], int(1000 * time.time())
        if step <= self._done[kind]:
            return
        values = {name: value for name, value in scalars(line) if name != "step"} | {kind: step}
        self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in values.items()])

    def close(self) -> None:
        self._client.set_terminated(self._id)


def flattened(values: dict, prefix: str = "") -> dict[str, object]:
    """Nested sections as `a.b` → value."""
    found: dict[str, object] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= flattened(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
