"""Records of strangers: lines, cells and values beyond all bounds are broken lines like others, and cost no memory."""

import gzip
import json
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from kanana_jax.data.read import jsonl, parquet, records
from kanana_jax.data.read.record import Broken
from kanana_jax.errors import UserError

GOOD = b'{"id": "g", "text": "good", "meta": {"year": 1999}}\n'


def _read(path):
    return [item.reason if isinstance(item, Broken) else item["text"] for item in records.read(str(path), source="s")]


@pytest.mark.parametrize(
    "line, word",
    [
        ('{"text": "a", "meta": {"x": ' + "[" * 300 + "1" + "]" * 300 + "}}", "deeper"),
        ('{"text": "a", "x": ' + '{"k":' * 5000 + "1" + "}" * 5000 + "}", "deeper"),
        ('{"text": "a", "meta": {"n": NaN}}', "NaN"),
        ('{"text": "a", "meta": {"n": 1e999}}', "infinite"),
        ('{"text": "a", "meta": {"n": 1%s}}' % ("0" * 400), "64 bits"),
        ('{"text": "a", "meta": {"n": 1%s}}' % ("0" * 9000), "JSON"),
        ('{"text": "a", "text": "b"}', "twice"),
        ('{"text": "a", "meta": {"k": 1, "k": 2}}', "twice"),
        ('{"text": "a", "id": ["x"]}', "'id'"),
        ('{"text": "a", "id": true}', "'id'"),
        ('{"text": "a\\udc01"}', "surrogates"),
        ('{"text": "a", "lang": {"ko": 1}}', "'lang'"),
        ('{"text": ["a"]}', "not text"),
    ],
)
def test_a_line_that_readers_would_take_differently_is_broken(tmp_path, line, word):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + line.encode() + b"\n" + GOOD)
    good, broken, after = _read(path)
    assert (good, after) == ("good", "good") and word in broken


def test_ids_may_be_numbers_and_nesting_that_people_use_is_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    deep = 90
    path.write_text('{"text": "a", "id": 7, "meta": {"x": ' + "[" * deep + "1" + "]" * deep + "}}")
    (record,) = records.read(str(path), source="s")
    assert record["id"] == "7" and json.dumps(record["meta"]["x"]).count("[") == deep


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "array_record"])
def test_a_long_line_is_broken_and_its_neighbours_are_read(tmp_path, form, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_LINE", 1000)
    monkeypatch.setattr(jsonl.lines, "__defaults__", (1000,))
    long = b'{"text": "' + b"a" * 3000 + b'"}'
    data, path = GOOD + long + b"\n" + GOOD, tmp_path / f"a.{form}"
    if form == "array_record":
        from array_record.python.array_record_module import ArrayRecordWriter

        writer = ArrayRecordWriter(str(path), "group_size:1")
        for line in data.splitlines():
            writer.write(line)
        writer.close()
    else:
        pack = {"jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}.get(form, lambda x: x)
        path.write_bytes(pack(data))
    good, broken, after = _read(path)
    assert (good, after) == ("good", "good") and "bytes" in broken


def test_the_last_byte_of_the_limit_and_a_line_without_end():
    from io import BytesIO

    assert list(jsonl.lines(BytesIO(b"abc\nabcd\nabcde\nab"), 4)) == [b"abc\n", b"abcd\n", None, b"ab"]
    with pytest.raises(ValueError, match="line 2 does not end within"):
        list(jsonl.lines(BytesIO(b"a\n" + b"b" * (3 << 20)), 1000))


def _texts_in_dictionary(values, indices):
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(indices, pyarrow.int32()), pyarrow.array(values))


def test_cells_of_a_table_are_bounded_like_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_LINE", 1000)
    path = tmp_path / "a.parquet"
    table = {
        "text": _texts_in_dictionary(["short", "t" * 2000], [0, 1, 0, 0, 0]),
        "other": [None, None, [{"a": "x" * 600}] * 3, [{"a": "y"}], []],
        "map": pyarrow.array([[], [], [], [("k", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "number": [1.0, 2.0, 3.0, float("nan"), 5.0],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=3, store_schema=False)
    found = _read(path)
    assert [x.split()[0] for x in found] == ["short", "row", "row", "short", "short"]
    assert list(records.read(str(path), source="s"))[3]["meta"]["number"] is None


@pytest.mark.parametrize("what, word", [("page", "a page unpacks to"), ("lists", "lists of 5000 values")])
def test_a_table_that_unpacks_beyond_the_limits_is_refused_before(tmp_path, monkeypatch, what, word):
    monkeypatch.setattr(parquet, "MAX_PAGE", 100_000)
    monkeypatch.setattr(parquet, "MAX_NESTED", 4000)
    path, rows = tmp_path / "a.parquet", {"text": ["a"] * 5}
    rows |= {"x": ["b" * 200_000] * 5} if what == "page" else {"x": [[None] * 1000] * 5}
    pyarrow.parquet.write_table(pyarrow.table(rows), path, compression="zstd")
    with pytest.raises(UserError, match=f"row group 1, column 'x.*{word}"):
        _read(path)


def test_page_headers_say_what_the_writer_wrote(tmp_path):
    """The sizes by our reading of Thrift are those of the footer, for pages of both kinds."""
    path = tmp_path / "a.parquet"
    rows = {"text": [f"text {i}" for i in range(5000)], "n": [[i, None] for i in range(5000)]}
    for version in ("1.0", "2.0"):
        pyarrow.parquet.write_table(
            pyarrow.table(rows), path, data_page_size=1000, data_page_version=version, compression="zstd"
        )
        meta = pyarrow.parquet.read_metadata(path)
        with path.open("rb") as stream:
            leaves, (columns,) = parquet._footer(stream)
            assert [(leaf.path, leaf.nested) for leaf in leaves] == [("text", False), ("n.list.element", True)]
            for c in range(2):
                column = meta.row_group(0).column(c)
                pages = list(parquet._pages(stream, columns[c]))
                assert len(pages) > 5 and sum(p.values for p in pages if p.kind != 2) == column.num_values
                assert 0 < column.total_uncompressed_size - sum(p.unpacked for p in pages) < 100 * len(pages)


_BOUNDED = """
import resource, sys
from kanana_jax.data.read import records
list(records.read(sys.argv[1], source="s"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
items = list(records.read(sys.argv[2], source="s"))
print(len(items), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_stays_bounded(tmp_path):
    """200 MB in 0.2 MB of gzip: a line of them all is never held."""
    small, big = tmp_path / "s.jsonl.gz", tmp_path / "b.jsonl.gz"
    small.write_bytes(gzip.compress(GOOD))
    with gzip.open(big, "wb", compresslevel=1) as file:
        file.write(GOOD + b'{"text": "')
        for _ in range(200):
            file.write(b"a" * (1 << 20))
        file.write(b'"}\n' + GOOD)
    run = subprocess.run([sys.executable, "-c", _BOUNDED, small, big], capture_output=True, text=True, timeout=300)
    items, grown = map(int, run.stdout.split())
    assert items == 3 and grown < 150
