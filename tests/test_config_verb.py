"""`kanana config`: every value with its source; `--version`; a verb that is not there."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from kanana_jax import __version__
from kanana_jax.cli import main


def _values(capsys, *arguments):
    assert main(["config", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_sources_of_values(capsys):
    found = _values(
        capsys, f"{ROOT}/configs/tiny.py:test", "--config.runtime.remat=full", "--config.stage1.train.tokens", "2M",
        "--config.sources.extra.path=x.jsonl", "--config.sources.extra.lang=ko",
    )  # fmt: skip
    assert found["runtime.remat"] == {"value": "full", "source": "command line"}
    assert found["stage1.train.tokens"] == {"value": 2_000_000, "source": "command line"}
    assert found["sources.extra.path"]["source"] == found["sources.extra.lang"]["source"] == "command line"
    assert found["sources.extra.holdout"]["source"] == "default"
    assert found["stage1.train.seq_len"] == {"value": 64, "source": "file"}
    assert found["runtime.compute_dtype"] == {"value": "float32", "source": "default"}
    assert found["pruned.prune.shape.embed_dim"] == {"value": 24, "source": "file"}
    assert found["stage2.model"] == {"value": None, "source": "default"} or "stage2.model" not in found


def test_filters_and_lines(capsys):
    assert main(["config", f"{ROOT}/configs/data/ko.py", "--config.filters.ko.unit=character"]) == 0
    lines = capsys.readouterr().out.splitlines()
    unit = next(line for line in lines if line.startswith("filters.ko.unit"))
    assert "'character'" in unit and unit.endswith("# command line")
    assert any(line.endswith("ko.py") for line in lines) and any(line.endswith("# default") for line in lines)


@pytest.mark.parametrize(
    "text, words", [("c = dict(a=1)", "not a config of a recipe"), ("c = dict(stages=('a',))", "names 'a'")]
)
def test_mistakes(tmp_path, capsys, text, words):
    file = tmp_path / "c.py"
    file.write_text(f"from ml_collections import ConfigDict\ndef get_config():\n    {text}\n    return ConfigDict(c)\n")
    assert main(["config", str(file)]) == 2 and words in capsys.readouterr().err


def test_version_and_verbs(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out.strip() == f"kanana-jax {__version__}"
    with pytest.raises(SystemExit) as caught:
        main(["--debug-all", "fliter"])
    assert caught.value.code == 2 and "did you mean 'filter'?" in capsys.readouterr().err


def test_tab_completes(tmp_path):
    out = tmp_path / "words"
    line = "kanana qual"
    environment = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(out), "_ARGCOMPLETE_IFS": "\n"}
    environment |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-m", "kanana_jax"], env=environment, cwd=ROOT, check=False, timeout=60)
    assert out.read_text(encoding="utf-8").strip() == "quality"
