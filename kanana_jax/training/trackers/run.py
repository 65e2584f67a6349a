"""One run of an experiment tracker: a stage and the names under which it is tracked."""

import dataclasses
import pathlib
from typing import Any


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """A stage as a tracker knows it.

    Attributes:
      id: the same whenever the stage is resumed.
      project: the tracker's project or experiment.
      group: name of the recipe's run.
      folder: the stage's folder; its name is the stage's.
      config: values shown beside the figures.
      from_step: step that the stage resumes from; 0 for a new stage.
    """

    id: str
    project: str
    group: str
    folder: pathlib.Path
    config: dict[str, Any]
    from_step: int

    @property
    def name(self) -> str:
        return f"{self.group}/{self.folder.name}"
