"""Weights & Biases."""

from kanana_jax.files import is_remote
from kanana_jax.training.metrics import Line, scalars
from kanana_jax.training.trackers.run import TrackedRun


class WeightsAndBiases:
    """A run of Weights & Biases; with `WANDB_MODE=offline` it stays in the stage's folder until `wandb sync`.

    Lines that a resumed stage writes again are sent again. The service's documentation says it ignores steps before its
    last one (not tested: no service was available).
    """

    def __init__(self, run: TrackedRun):
        import wandb

        self._run = wandb.init(
            project=run.project,
            id=run.id,
            name=run.name,
            group=run.group,
            config=run.config,
            dir=None if is_remote(run.folder) else str(run.folder),
            resume="allow",
            settings=wandb.Settings(disable_code=True, disable_git=True, save_code=False, console="off", silent=True),
        )

    def write(self, line: Line) -> None:
        self._run.log({name: value for name, value in scalars(line) if name != "step"}, step=line["step"])

    def close(self) -> None:
        self._run.finish()
