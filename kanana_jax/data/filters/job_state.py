"""Progress (`state.json`) and inputs (`inputs.json`) of a filter job: it resumes exactly, or is refused."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kanana_jax.data.filters.appended import Good, digest_of
from kanana_jax.data.read import origins as origins_lib
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.outputs import STATE
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import whole_file

INPUTS, REPORT = "inputs.json", "report.json"


def begin(output: pathlib.Path, job: Mapping[str, Any], origins: Sequence[Origin]) -> dict[str, Any]:
    """The state to resume from; if there is none, a saved initial state.

    Args:
      job: the values that must be the same in all starts, besides the inputs.

    Raises:
      ConfigError: the job was started with another config or input.
      UserError: the state is damaged.
    """
    job = {**job, "origins": _digest(repr([(origin.address, origin.digest) for origin in origins]))}
    state = _load(output / STATE)
    if state is not None and {**state["job"], "origins": ""} != {**job, "origins": ""}:
        raise ConfigError(f"{output} was started with another config or input: use those, or name another --output")
    if state is not None and state["job"] != job:
        what = origins_lib.difference(origins_lib.load(output / INPUTS), origins) or "its inputs differ"
        raise ConfigError(f"{output} was started with other inputs ({what}): name another --output")
    origins_lib.save(output / INPUTS, origins)
    if state is None:
        state = {"job": job, "finished": False}
        save(output, state)
    return state


def save(output: pathlib.Path, state: Mapping[str, Any]) -> None:
    """Writes the state."""
    text = json.dumps(state)  # in ASCII: a path that is not UTF-8 has lone surrogates, which need escapes
    with whole_file(output / STATE) as temporary:
        temporary.write_text(f'{{"digest": "{_digest(text)}", {text[1:]}', encoding="utf-8")


def finish(output: pathlib.Path, job: Mapping[str, Any], written: Mapping[str, Good]) -> None:
    """Marks the job as done, with the report and the sizes and digests of its outputs."""
    size = (output / REPORT).stat().st_size
    report = (size, digest_of(output / REPORT, size).hexdigest())
    save(output, {"job": job, "finished": True, "results": {**written, REPORT: report}})


def result(output: pathlib.Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a finished job.

    Raises:
      UserError: its outputs are missing or damaged.
    """
    try:
        for name, (size, digest) in state["results"].items():
            found = (output / name).stat().st_size
            if found != size or digest_of(output / name, size).hexdigest() != digest:
                raise ValueError(f"{name} differs from what was written")
        return json.loads((output / REPORT).read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{output} is finished but damaged ({error}): name another --output") from error


def _load(path: pathlib.Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if "digest" not in state and "job" in state:
            raise ConfigError(f"{path.parent} was started by an older version: name another --output")
        if state.pop("digest") != _digest(json.dumps(state)):
            raise ValueError("it differs from what was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): remove its folder, or name another --output") from error
    return state


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
