"""Every form of input, and broken ones."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from kanana_jax.data.read import records, sources
from kanana_jax.data.read.record import Broken
from kanana_jax.errors import UserError

DOCUMENTS = [{"id": f"d{i}", "text": f"문서 {i}\nline two", "title": "t"} for i in range(5)]
LINES = "".join(json.dumps(d, ensure_ascii=False) + "\n" for d in DOCUMENTS).encode()


def _write(folder, form):
    path = folder / f"documents.{form}"
    if form == "jsonl":
        path.write_bytes(LINES)
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(LINES))
    elif form == "jsonl.zst":
        path.write_bytes(zstandard.compress(LINES))
    elif form == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(DOCUMENTS), path)
    else:
        from array_record.python.array_record_module import ArrayRecordWriter

        writer = ArrayRecordWriter(str(path), "group_size:1")
        for line in LINES.splitlines():
            writer.write(line)
        writer.close()
    return path


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "array_record"])
def test_every_form_gives_the_same_records(tmp_path, form):
    _write(tmp_path, form)
    got = list(records.read(str(tmp_path), source="s", lang="ko"))
    assert got == [
        {"id": d["id"], "text": d["text"], "source": "s", "lang": "ko", "meta": {"title": "t"}} for d in DOCUMENTS
    ]


def test_functions_of_a_parquet_file_have_only_the_keys_they_were_written_with(tmp_path):
    def tool(name, properties, **more):
        parameters = {"type": "object", "properties": properties, **more}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    def call(name, arguments):
        return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}

    weather = tool("weather", {"city": {"type": "string", "enum": ["서울", None]}}, required=["city"])
    lines = tool("lines", {"rows": {"type": "array", "items": {"type": "number"}}})
    asked = {"role": "user", "content": "?"}
    calls = [call("weather", {"city": "서울"}), call("lines", {"rows": [1.5]})]
    text = call("lines", '{"rows": null}')
    written = [
        {"id": "a", "messages": [asked, *calls, {"role": "tool", "name": "lines", "content": "3"}], "tools": [weather]},
        {"id": "b", "messages": [asked, {"role": "assistant", "content": "3"}], "tools": [weather, lines]},
        {"id": "c", "messages": [asked], "tools": [tool("now", {})]},
    ]
    texts = [{"id": "d", "messages": [asked, text], "tools": [lines]}]
    for name, rows in (("objects", written), ("texts", texts)):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        got, expected = (
            list(records.read(str(tmp_path / f"{name}.{form}"), source="s")) for form in ("parquet", "jsonl")
        )
        assert got == expected and len(got) == len(rows)
        assert [record["tools"] for record in got] == [row["tools"] for row in rows]


@pytest.mark.parametrize(
    "field, turns",
    [
        ("messages", [{"role": "user", "content": '물음 "1"'}, {"role": "assistant", "content": "답"}]),
        ("conversations", [{"from": "human", "value": "물음\n1"}, {"from": "gpt", "value": "답"}]),
    ],
)
def test_turns_in_a_column_of_texts(tmp_path, field, turns):
    texts = [json.dumps(turns, ensure_ascii=False), str(turns), json.dumps(turns)]  # the second is Python, not JSON
    table, lines = tmp_path / "a.parquet", tmp_path / "a.jsonl"
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "b", "c"], field: texts}), table)
    lines.write_text("".join(json.dumps({"id": id, field: turns}) + "\n" for id in "ac"))
    first, broken, last = records.read(str(table), source="s")
    assert [first, last] == list(records.read(str(lines), source="s"))
    assert isinstance(broken, Broken) and broken.where == f"{table}:2"
    assert broken.reason.startswith(f"'{field}' is not a list of turns, nor JSON text of one (")


def test_text_files_and_globs(tmp_path):
    for name in "ba":
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    assert [r["text"] for r in records.read(str(tmp_path / "*.txt"), source="s")] == ["text a", "text b"]


BROKEN = {
    "not JSON": b'{"text": "cut',
    "bad UTF-8": b'{"text": "\xff"}',
    "no text": b'{"id": "x"}',
    "empty": b'{"text": "  "}',
    "not an object": b"[1, 2]",
    "text is a number": b'{"text": 3}',
    "surrogate": b'{"text": "a\\ud800"}',
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_line_is_named_counted_and_refused_beyond_its_share(tmp_path, what):
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES + BROKEN[what] + b"\n" + LINES)
    items = list(records.read(str(path), source="s"))
    assert len(items) == 11 and isinstance(items[5], Broken) and items[5].where == f"{path}:6"
    with pytest.raises(UserError, match=r"1 of 11 lines are broken, the first is .*a\.jsonl:6"):
        sources.prepare("s", sources.SourceConfig(str(path), "ko"), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))
    prepared = sources.prepare(
        "s", sources.SourceConfig(str(path), "ko", max_broken_share=0.2, holdout=0.0), tmp_path / "cache"
    )
    assert prepared.index["broken_lines"] == 1 and prepared.documents("train") == 10


@pytest.mark.parametrize(
    "path, word", [("nowhere", "no documents"), ("a.xyz", "cannot be read"), ("empty.jsonl", "no documents to train")]
)
def test_sources_without_documents(tmp_path, path, word):
    (tmp_path / "a.xyz").write_text("x")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match=word):
        sources.prepare("s", sources.SourceConfig(str(tmp_path / path), "ko"), tmp_path / "cache")


def test_a_truncated_archive_is_an_error(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINES * 50)[:-20])
    with pytest.raises(UserError, match="truncated"):
        list(records.read(str(path), source="s"))


def test_holdout_is_stable_disjoint_and_keeps_groups_together(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"id": f"{doc}-{lang}", "doc": f"page{doc}", "text": "x"} for doc in range(400) for lang in ("ko", "en")]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = sources.SourceConfig(str(path), "ko", holdout=0.1, split_key="doc")
    prepared = sources.prepare("s", config, tmp_path / "cache")
    ids = {s: [json.loads(d)["id"] for d in prepared.split(s)] for s in sources.SPLITS}
    assert not set(ids["train"]) & set(ids["heldout"]) and len(ids["train"]) + len(ids["heldout"]) == 800
    held = {i.split("-")[0] for i in ids["heldout"]}
    assert len(ids["heldout"]) == 2 * len(held) and 20 <= len(held) <= 60
    assert sources.prepare("s", config, tmp_path / "cache").folder == prepared.folder


def test_a_hub_data_set_needs_its_library():
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="pip install datasets"):
            list(records.read("hf://org/name", source="s"))


def test_raw_documents_beside_records(tmp_path):
    """A folder of records and of raw documents; a LaTeX project in it is one document; `format` names what names do not."""
    (tmp_path / "a.jsonl").write_text('{"id": "1", "text": "a record"}\n')
    (tmp_path / "b.md").write_text("---\ntitle: T\n---\n# Head\n\ntext\n")
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/main.tex").write_text(
        "\\documentclass{article}\\begin{document}One. \\input{two}\\end{document}"
    )
    (tmp_path / "paper/two.tex").write_text("Two.")
    found = list(records.read(str(tmp_path), source="s", lang="en"))
    assert [r["id"] for r in found] == ["1", "b.md", "paper/main.tex"]
    assert found[1]["meta"]["format"] == "markdown" and found[1]["text"].startswith("# Head")
    assert found[2]["text"] == "One. Two."
    (tmp_path / "c.txt").write_bytes("吾輩《わがはい》は猫である。".encode("cp932"))
    (aozora,) = records.read(str(tmp_path / "c.txt"), source="s", format="aozora")
    assert aozora["text"] == "吾輩は猫である。"
