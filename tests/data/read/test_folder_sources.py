"""Own documents: a folder of anything as a source; what is left out is named and counted, and nothing is lost."""

import gzip
import json
import os

import pytest
import zstandard
from office_files import docx

from kanana_jax.data.read import folders, inventory, jsonl, records, sources, summary
from kanana_jax.errors import UserError

KOREAN = "오늘은 날씨가 맑고 바람이 시원하다. 그래서 사람들이 공원에 많이 나왔다. "
ENGLISH = "The library opens at nine and closes at six, and most people come in the afternoon. "
ENCRYPTED = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 40 + "EncryptedPackage".encode("utf-16-le") + b"\0" * 600


def _prepare(path, tmp_path, **config):
    return sources.prepare("s", sources.SourceConfig(str(path), **({"lang": "ko"} | config)), tmp_path / "cache")


def _stored(prepared):
    return [json.loads(d) for s in sources.SPLITS if prepared.documents(s) for d in prepared.split(s)]


def _write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_a_folder_of_everything_gives_each_document_once_by_its_relative_path(tmp_path):
    folder = tmp_path / "docs"
    files = {
        "보고서.v1.txt": KOREAN,
        "보고서.v2.txt": KOREAN * 2,
        "a/보고서.v1.txt": KOREAN * 3,
        "page.html": f"<html><body><p>{KOREAN * 4}</p></body></html>",
        "note.md": f"# 제목\n\n{KOREAN}",
        "word.docx": docx(f"<w:p><w:r><w:t>{KOREAN}</w:t></w:r></w:p>"),
        "rows.jsonl": json.dumps({"text": KOREAN}) + "\n" + json.dumps({"text": ENGLISH, "id": "own"}) + "\n",
        "rows.jsonl.gz": gzip.compress(json.dumps({"text": KOREAN}).encode()),
        "old.txt": KOREAN.encode("cp949"),
        "utf16.txt": KOREAN.encode("utf-16"),
        "windows.txt": "\ufeff한 줄\r\n두 줄\r\n".encode(),
    }
    for name, content in files.items():
        _write(folder, **{name: content})
    stored = {record["id"]: record["text"] for record in _stored(_prepare(folder, tmp_path, holdout=0.0))}
    assert stored.keys() == (files.keys() - {"rows.jsonl", "rows.jsonl.gz"}) | {
        "rows.jsonl:1",
        "own",
        "rows.jsonl.gz:1",
    }
    assert stored["old.txt"].strip() == stored["utf16.txt"].strip() == KOREAN.strip()
    assert stored["windows.txt"] == "한 줄\n두 줄\n" and stored["보고서.v2.txt"] == KOREAN * 2


@pytest.fixture
def odd(tmp_path):
    """A folder in which ten documents are good and one each is odd in some way."""
    folder = tmp_path / "docs"
    for number in range(10):
        _write(folder, **{f"good{number}.txt": f"{number} {KOREAN}"})
    _write(
        folder,
        **{"empty.txt": "", "none.jsonl": "", "x.exe": b"MZ", "locked.docx": ENCRYPTED, ".hidden": "x"},
        **{"scan.html": "<html><body></body></html>", "broken.docx": b"PK\x03\x04 no zip"},
    )
    _write(tmp_path, outside__secret="s", outside__b__c="x")
    _write(tmp_path / "outside", **{"secret.txt": "not yours"})
    (folder / "link.txt").symlink_to(tmp_path / "outside/secret.txt")
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "nowhere.txt").symlink_to(tmp_path / "gone")
    (folder / "again.txt").symlink_to(folder / "good1.txt")
    os.mkfifo(folder / "pipe.txt")
    return folder


def test_what_is_left_out_is_named_and_counted_by_reason(tmp_path, odd):
    prepared = _prepare(odd, tmp_path, holdout=0.0)
    assert prepared.documents("train") == 10
    reasons = {reason: (n, sorted(names)) for reason, (n, names) in prepared.left_out.reasons.items()}
    broken = next(reason for reason, (_, names) in reasons.items() if names == ["broken.docx"])
    assert "archive" in broken or "not a Word" in broken
    del reasons[broken]
    assert reasons == {
        "empty (0 bytes)": (1, ["empty.txt"]),
        "without documents": (1, ["none.jsonl"]),
        "holds no text": (1, ["scan.html"]),
        "document is encrypted: save it without a password": (1, ["locked.docx"]),
        inventory.UNKNOWN: (1, ["x.exe"]),
        inventory.HIDDEN: (1, [".hidden"]),
        inventory.OUTSIDE: (2, ["link.txt", "linked"]),
        inventory.NOWHERE: (1, ["nowhere.txt"]),
        inventory.SPECIAL: (1, ["pipe.txt"]),
    }
    table = summary.table({"s": prepared})
    assert "left out: 2 files (link.txt, linked): a link out of the folder, which is not followed" in table
    assert summary.about(prepared)["left_out"]["empty (0 bytes)"] == {"files": 1, "first": ["empty.txt"]}


def test_only_the_first_names_of_a_reason_are_told(tmp_path):
    _write(tmp_path / "d", **{f"x{n}.exe": "x" for n in range(40)}, **{"a.txt": "a"})
    left_out = _prepare(tmp_path / "d", tmp_path).left_out
    assert str(left_out).startswith("40 files (x0.exe, x1.exe, x10.exe, x11.exe, x12.exe, …): of an unknown type")


SENTENCES = [
    ({}, "d' has no documents: the folder is empty; give a file, a folder or a glob of .*\\.docx"),
    (
        {"a.exe": "x", "b.dat": "y"},
        r"has no documents: left out are 2 files \(a.exe, b.dat\): of an unknown type; give",
    ),
    (
        {"a.txt": "", "b.txt": ""},
        r"has no documents to train on: left out are 2 files \(a.txt, b.txt\): empty \(0 bytes\)",
    ),
    (
        {"a.docx": ENCRYPTED},
        r"no documents to train on: left out are 1 file \(a.docx\): document is encrypted: save it",
    ),
]


@pytest.mark.parametrize("files, sentence", SENTENCES)
def test_a_folder_without_documents_is_told_in_one_sentence(tmp_path, files, sentence):
    (tmp_path / "d").mkdir()
    _write(tmp_path / "d", **files)
    with pytest.raises(UserError, match=sentence):
        _prepare(tmp_path / "d", tmp_path)
    assert not list((tmp_path / "cache").glob("*"))


def test_links_out_of_the_folder_only_and_a_glob_without_files(tmp_path):
    _write(tmp_path, **{"a.txt": "a"})
    (tmp_path / "d").mkdir()
    (tmp_path / "d/link.txt").symlink_to(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"1 file \(link.txt\): a link out of the folder"):
        _prepare(tmp_path / "d", tmp_path)
    with pytest.raises(UserError, match="no file matches"):
        _prepare(tmp_path / "d/*.md", tmp_path)
    with pytest.raises(UserError, match="there is no such file or folder"):
        _prepare(tmp_path / "gone", tmp_path)


def test_a_long_text_is_read_in_pieces_and_a_long_office_file_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_LINE", 4000)
    monkeypatch.setattr("kanana_jax.data.extract.files.MAX_BYTES", 4000)
    text = "".join(f"문단 {n}. {KOREAN}\n" + "\n" * (n % 3 == 0) for n in range(200))
    _write(tmp_path / "d", **{"long.txt": text, "no_ends.txt": "가나다" * 3000, "wide.txt": text.encode("utf-16")})
    _write(tmp_path / "d", **{"long.docx": b"PK" + b"x" * 5000, "old.txt": text.encode("cp949")})
    prepared = _prepare(tmp_path / "d", tmp_path, holdout=0.0)
    stored = {record["id"]: record["text"] for record in _stored(prepared)}

    def joined(name):
        ids = [id for id in stored if id.startswith(f"{name}#")]
        assert ids == [f"{name}#{n}" for n in range(1, len(ids) + 1)] and len(ids) > 10
        return "".join(stored[id] for id in ids)

    assert joined("long.txt") == text and joined("no_ends.txt") == "가나다" * 3000
    assert "".join(joined("old.txt").split()) == "".join(text.split())
    assert all(len(text.encode()) <= 1000 for id, text in stored.items() if not id.startswith("old"))
    reasons = {names: reason for reason, (_, names) in prepared.left_out.reasons.items()}
    assert reasons["long.docx",] == "document has more than 4000 bytes"
    assert reasons["wide.txt#1",].endswith("in UTF-16: convert it to UTF-8")


@pytest.mark.parametrize("documents, held", [(1, 0), (2, 1), (7, 1)])
def test_a_small_source_trains_and_evaluates(tmp_path, documents, held):
    _write(tmp_path / "d", **{f"{n}.txt": f"{n} {KOREAN}" for n in range(documents)})
    prepared = _prepare(tmp_path / "d", tmp_path, holdout=1e-9)
    assert (prepared.documents("heldout"), prepared.documents("train")) == (held, documents - held)
    assert prepared.index["alone"] == (documents == 1)
    assert ("none is held out" in summary.table({"s": prepared})) == (documents == 1)
    most = _prepare(tmp_path / "d", tmp_path, holdout=1 - 1e-9)
    assert (most.documents("heldout"), most.documents("train")) == (documents - 1, 1)
    none = _prepare(tmp_path / "d", tmp_path, holdout=0.0)
    assert none.documents("heldout") == 0 and not none.index["alone"]


def test_documents_that_share_their_key_stay_together_however_few_they_are(tmp_path):
    rows = [{"text": f"{n} {KOREAN}", "id": str(n), "doc": f"page{n // 10}"} for n in range(30)]
    _write(tmp_path / "d", **{"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    prepared = _prepare(tmp_path / "d", tmp_path, holdout=1e-9, split_key="doc")
    held = [json.loads(data)["id"] for data in prepared.split("heldout")]
    assert len(held) == 10 and len({int(id) // 10 for id in held}) == 1


def test_a_file_that_can_not_be_opened_is_named(tmp_path, monkeypatch):
    _write(tmp_path / "d", **{"a.txt": KOREAN, "b.txt": ENGLISH})
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("b.txt") and allowed(path, mode))
    found, left_out = records.survey(str(tmp_path / "d"))
    assert [os.path.basename(origin.path) for origin in found] == ["a.txt"]
    assert left_out.reasons == {inventory.LOCKED: (1, ("b.txt",))}


def _langs(found):
    return {name: (group.lang, group.among) for name, group in found.items()}


def test_sub_folders_by_language_and_others(tmp_path, caplog):
    caplog.set_level("INFO", "kanana")
    _write(tmp_path, **{f"ko__{n}.txt": KOREAN for n in range(3)}, **{"eng__a.b.c.txt": ENGLISH, "pt-BR__a.txt": "olá"})
    _write(
        tmp_path,
        **{"zh_Hans__a.txt": "今天", "보고서__a.md": KOREAN * 3, "v1.2__a.md": ENGLISH * 3, "code__a.jsonl": "{}\n"},
    )
    _write(tmp_path, **{"images__a.png": b"x", ".git__config.txt": "x"})
    found = folders.groups(tmp_path)
    assert _langs(found) == {
        "code": ("en", ()),
        "eng": ("en", ()),
        "ko": ("ko", ()),
        "pt_BR": ("pt", ()),
        "v1_2": ("en", ()),
        "zh_Hans": ("zh", ()),
        "보고서": ("ko", ()),
    }
    assert found["ko"].files == 3 and found["ko"].bytes == 3 * len(KOREAN.encode())
    told = caplog.text
    assert "images/ has no documents: left out are 1 file (a.png): of an unknown type" in told
    assert "보고서/ is not a language code; its documents are taken as 'ko' (1 of 1 sampled documents, by CLD2)" in told
    assert "code/ is not a language code; its documents are taken as 'en' (CLD2 finds no language in a sample)" in told


def test_names_of_sources_never_collide(tmp_path):
    _write(tmp_path, **{"a.b__x.txt": ENGLISH, "a b__x.txt": ENGLISH, "a_b__x.txt": ENGLISH, "x.txt": KOREAN})
    found = folders.groups(tmp_path)
    assert sorted(found) == ["a_b", "a_b_2", "a_b_3", "files_ko"] and len({group.path for group in found.values()}) == 4


def test_a_flat_folder_gives_every_document_to_the_source_of_its_language(tmp_path, caplog):
    caplog.set_level("INFO", "kanana")
    folder = tmp_path / "[d] *"
    _write(
        folder, **{f"k{n}.txt": f"{n} {KOREAN * 3}" for n in range(20)}, **{f"e{n}.md": ENGLISH * 3 for n in range(9)}
    )
    _write(folder, **{"n.txt": "1234 5678", "j.txt": "今日は天気がとても良いので、公園を散歩しました。" * 3})
    found = folders.groups(folder)
    assert _langs(found) == {"ko": ("ko", ("ko", "en")), "en": ("en", ("ko", "en"))}
    assert "31 files without a folder of a language" in caplog.text
    stored = {}
    for name, group in found.items():
        config = sources.SourceConfig(group.path, group.lang, among=group.among, holdout=0.1)
        for record in _stored(sources.prepare(name, config, tmp_path / "cache")):
            assert record["lang"] == group.lang
            stored[record["id"]] = name
    assert len(stored) == 31 and {id for id, name in stored.items() if name == "en"} == {f"e{n}.md" for n in range(9)}
    _write(folder, sub__a=b"x", **{"ko__a.txt": KOREAN})
    beside = folders.groups(folder)
    assert sorted(beside) == ["files_en", "files_ko", "ko"]
    assert len(records.survey(beside["files_ko"].path)[0]) == 31


def test_a_single_file_and_nothing_at_all(tmp_path):
    _write(tmp_path, **{"a.txt": KOREAN})
    assert _langs(folders.groups(tmp_path / "a.txt")) == {"ko": ("ko", ())}
    (tmp_path / "empty").mkdir()
    for place, sentence in (("gone", "does not exist"), ("empty", "has no documents to read: it is empty")):
        with pytest.raises(UserError, match=sentence):
            folders.groups(tmp_path / place)
    _write(tmp_path / "exe", **{"a.exe": "x"})
    with pytest.raises(UserError, match=r"1 file \(a.exe\): of an unknown type"):
        folders.groups(tmp_path / "exe")


@pytest.mark.parametrize("pack, ending", [(gzip.compress, "gz"), (zstandard.compress, "zst")])
def test_packed_records_count_as_unpacked_and_empty_files_are_told(tmp_path, pack, ending):
    lines = "".join(json.dumps({"text": f"{n}. {KOREAN}"}, ensure_ascii=False) + "\n" for n in range(500)).encode()
    _write(tmp_path, **{f"ko__kept.jsonl.{ending}": pack(lines), "ko__more.txt": KOREAN})
    group = folders.groups(tmp_path)["ko"]
    assert group.bytes == pytest.approx(len(lines) + len(KOREAN.encode()), rel=0.01)
    _write(tmp_path / "none", **{f"kept.jsonl.{ending}": pack(b"")})
    with pytest.raises(UserError, match="are empty: if they come from a filter"):
        folders.groups(tmp_path / "none")
    _write(tmp_path, **{f"ko__kept.jsonl.{ending}": b"no such thing"})
    assert folders.groups(tmp_path)["ko"].bytes == 13 + len(KOREAN.encode())
