"""Text is UTF-8, whatever the locale: in the code's own calls, and in verbs that run under another one."""

import ast
import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

CODE = [
    f for folder in ("kanana_jax", "launch", "configs", "benchmarks") for f in sorted((ROOT / folder).rglob("*.py"))
]


def _without_encoding(call: ast.Call) -> bool:
    """Whether a call reads or writes text by the locale's encoding; ruff's rule sees only types that it can infer."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keys = {k.arg: k.value for k in call.keywords}
    if {"encoding", None} & keys.keys():
        return False
    if name in ("read_text", "write_text", "TextIOWrapper"):
        return True
    if any(isinstance(keys.get(k), ast.Constant) for k in ("text", "universal_newlines")):
        return name in ("run", "Popen", "check_output", "check_call")
    if name == "open" and isinstance(call.func, ast.Attribute) and not call.args and not call.keywords:
        return True  # path.open()
    modes = [a for a in [*call.args, keys.get("mode")] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return name in ("open", "fdopen", "NamedTemporaryFile") and any(m.value.strip("+t") in "rwax" for m in modes)


def test_every_text_file_has_its_encoding_named():
    found = []
    for file in CODE:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _without_encoding(node):
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not found, found


@pytest.fixture(scope="module")
def locales(tmp_path_factory) -> list[dict[str, str]]:
    """Environments whose encoding is not UTF-8."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = [plain, {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"}]
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef"):
        command = ["localedef", "-i", "ko_KR", "-f", "EUC-KR", str(folder / "ko_KR.euckr")]
        subprocess.run(command, capture_output=True)
    if (folder / "ko_KR.euckr").is_dir():
        korean = {"LC_ALL": "ko_KR.euckr", "LOCPATH": str(folder)}
        found += [korean, korean | {"PYTHONUTF8": "0"}]
    return found


# The command changes to Python's UTF-8 mode by itself; who calls `main` from a program of his own keeps his mode.
COMMAND = ("-m", "kanana_jax")
LIBRARY = ("-c", "import sys; from kanana_jax.cli import main; sys.exit(main())")


def _kanana(start: tuple[str, ...], env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run([sys.executable, *start, *arguments], cwd=ROOT, env=os.environ | env, capture_output=True)
    text = (done.stdout + done.stderr).decode("utf-8")
    assert done.returncode == 0, text
    assert "Error" not in text
    return text


def test_data_jobs_in_every_locale(locales, tmp_path):
    documents = [{"id": f"문서{i}", "text": f"한강 {i}호 다리 위로 — €{i} 🙂 눈이 내린다.\n" * 4} for i in range(12)]
    source = tmp_path / "가나다.jsonl"
    source.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents * 2), encoding="utf-8")
    config = tmp_path / "규칙.py"
    config.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        "def get_config():\n"
        "    rules = dict(글자=dict(signal='characters', min=10.0))\n"
        "    return ConfigDict(dict(filters=dict(default=dict(rules=rules))))\n",
        encoding="utf-8",
    )
    plain, korean = locales[0], locales[-1]
    # The second start of a folder reads what the first has written.
    for start, env, out in ((COMMAND, plain, "a"), (COMMAND, korean, "a"), (LIBRARY, plain, "b")):
        out = tmp_path / f"결과 {out}"
        _kanana(start, env, "dedup", "--input", str(source), "--output", str(out / "중복"))
        text = _kanana(
            start, env, "filter", "--config", str(config), "--input", str(source), "--output", str(out), "--signals"
        )
        assert "24 of 24" in text
        lines = gzip.decompress((out / "kept.jsonl.gz").read_bytes()).decode("utf-8").splitlines()
        assert [json.loads(line)["text"] for line in lines] == [d["text"].strip() for d in documents * 2]
        report = json.loads((out / "중복/report.json").read_text(encoding="utf-8"))
        assert (report["documents"], report["kept"]) == (24, 12)


def test_what_is_printed_in_every_locale(locales, tmp_path):
    missing = tmp_path / "없는 파일.jsonl"
    for env in locales[1:]:
        done = subprocess.run(
            [sys.executable, "-m", "kanana_jax", "dedup", "--input", str(missing), "--output", str(tmp_path / "출력")],
            cwd=ROOT, env=os.environ | env, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 1
        (line,) = done.stderr.decode("utf-8").splitlines()
        assert line.startswith("kanana: ") and "Encode" not in line


def test_a_name_that_is_no_utf8_goes_through_json(tmp_path):
    from kanana_jax.files import load_json, write_json

    name = os.fsdecode("파일".encode("euc-kr"))
    write_json(tmp_path / "a.json", {"input": name})
    assert load_json(pathlib.Path(tmp_path / "a.json")) == {"input": name}
