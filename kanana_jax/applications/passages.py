"""Splitting of documents into passages: parts that can be retrieved, read and cited on their own.

Every passage keeps the heading of its section and of the sections around it. Paragraphs of a section are joined up to a
maximum length. A longer paragraph is split between sentences, and a longer sentence at a space.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

from kanana_jax.applications.sentences import spans
from kanana_jax.data.read import records
from kanana_jax.data.read.record import Broken, Record
from kanana_jax.errors import UserError

_HEADING = re.compile(r"#{1,6}[ \t]{1,8}(?=\S)")
_CLOSING = re.compile(r"(?:^|[ \t])#+[ \t]*$")
_FENCE = ("```", "~~~")


@dataclasses.dataclass(frozen=True)
class Passage:
    """A part of a document.

    Attributes:
      id: the document's id, `#`, and the passage's number in the document, from 1.
      text: text of the passage.
      document: id of the document; for a file in a folder, its name in the folder.
      title: title of the document; may be empty.
      heading: heading of the section, preceded by those above it ('Refunds › Deadlines'); may be empty.
      questions: (question, answer) pairs that the document brings along and whose answer is in the text.
    """

    id: str
    text: str
    document: str
    title: str = ""
    heading: str = ""
    questions: tuple[tuple[str, str], ...] = ()

    @property
    def searched(self) -> str:
        """The text that a search indexes: title, heading and text."""
        return "\n".join(dict.fromkeys((*self._names, self.text)))

    @property
    def place(self) -> str:
        """The source shown to people: document, title and heading."""
        return ", ".join(dict.fromkeys((self.document, *self._names)))

    @property
    def _names(self) -> list[str]:
        """Title and heading that are not empty; the title is omitted if the heading begins with it."""
        held = self.heading == self.title or self.heading.startswith(f"{self.title} › ")
        return [name for name in ("" if held else self.title, self.heading) if name]


@dataclasses.dataclass(frozen=True)
class Passages:
    """Passages of a collection of documents.

    Attributes:
      passages: all passages, in the order of the documents.
      documents: number of documents that have passages.
      left_out: records that could not be read, each with the reason.
    """

    passages: tuple[Passage, ...]
    documents: int
    left_out: tuple[Broken, ...] = ()


def of_text(text: str, longest: int = 800) -> list[tuple[str, str]]:
    """The heading and text of each passage of a text.

    Args:
      longest: maximum number of characters per passage.

    Raises:
      ValueError: `longest` is below 50.
    """
    if longest < 50:
        raise ValueError("a passage must have at least 50 characters")
    found = [(heading, part) for heading, body in _sections(text) for part in _packed(_paragraphs(body), longest)]
    if not found and text.strip():  # headings alone
        found = [("", part) for part in _packed([text.strip()], longest)]
    return found


def of_record(record: Record, longest: int = 800) -> list[Passage]:
    """The passages of a document."""
    meta = record.get("meta") or {}
    title = meta.get("title")
    title = title if isinstance(title, str) else ""
    asked = _questions(meta.get("questions"))
    return [
        Passage(f"{record['id']}#{number}", text, record["id"], title, heading, tuple(q for q in asked if q[1] in text))
        for number, (heading, text) in enumerate(of_text(record["text"], longest), 1)
    ]


def _questions(given: Any) -> list[tuple[str, str]]:
    """Pairs from a document's `meta.questions`, `[{"question", "answer"}]`; malformed entries are skipped."""
    rows = [row for row in given if isinstance(row, dict)] if isinstance(given, list) else []
    pairs = [(row.get("question"), row.get("answer")) for row in rows]
    return [(q, a) for q, a in pairs if isinstance(q, str) and isinstance(a, str) and q.strip() and a.strip()]


def of_folder(path: str, longest: int = 800) -> Passages:
    """The passages of a file, folder or address, in any format of `records.read` (PDF, HTML, Markdown, jsonl …).

    Raises:
      UserError: the path does not exist, or no document in it could be read.
    """
    return of_records(records.read(path, source="documents"), path, longest)


def of_records(found: Iterable[Record | Broken], path: str, longest: int = 800) -> Passages:
    """The passages of records, and the records that could not be read.

    Args:
      path: where the records are from, for the error message.

    Raises:
      UserError: no record has text.
    """
    passages, documents, left_out = list[Passage](), 0, list[Broken]()
    for record in found:
        if isinstance(record, Broken):
            left_out.append(record)
            continue
        own = of_record(record, longest)
        passages += own
        documents += bool(own)
    if not passages:
        why = f" ({left_out[0].where}: {left_out[0].reason})" if left_out else ""
        raise UserError(f"{path} holds no document with text{why}: there is nothing to find")
    return Passages(tuple(passages), documents, tuple(left_out))


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """The heading and body of each section; inside fenced code, a line that begins with `#` is not a heading.

    A heading with nothing below it becomes a body, since '## Refunds within seven days' may be a page's only content.
    """
    path, body, fence = list[tuple[int, str]](), list[str](), ""
    for line in text.splitlines():
        bare = line.strip()
        if fence:
            fence = "" if bare.startswith(fence) else fence
        elif bare.startswith(_FENCE):
            fence = bare[:3]
        elif found := _HEADING.match(line):
            level = len(found[0].split()[0])
            yield _section(path, body, level)
            name = _CLOSING.sub("", line[found.end() :]).strip()
            path, body = [*(above for above in path if above[0] < level), (level, name)], []
            continue
        body.append(line)
    yield _section(path, body, 0)


def _section(path: list[tuple[int, str]], body: list[str], level: int) -> tuple[str, str]:
    """The heading, joined with those above it, and the body of a section.

    Args:
      path: levels and names of the heading and of those above it.
      level: level of the heading that follows the section; 0: the document ends.
    """
    names, text = [name for _, name in path], "\n".join(body)
    if path and not text.strip() and level <= path[-1][0]:
        names, text = names[:-1], names[-1]
    return " › ".join(names), text


def _paragraphs(body: str) -> list[str]:
    """Blocks of lines separated by blank lines."""
    parts = re.split(r"\n[ \t]*\n", body)
    return [part.strip("\n").rstrip() for part in parts if part.strip()]


def _packed(parts: list[str], longest: int) -> Iterator[str]:
    """Joins paragraphs as long as they fit into `longest` characters."""
    pieces = [piece for part in parts for piece in _cut(part, longest)]
    held = ""
    for piece in pieces:
        if held and len(held) + 2 + len(piece) > longest:
            yield held
            held = ""
        held = f"{held}\n\n{piece}" if held else piece
    if held:
        yield held


def _cut(paragraph: str, longest: int) -> Iterator[str]:
    """Splits a paragraph into pieces that end with a sentence, or else with a word."""
    if len(paragraph) <= longest:
        yield paragraph
        return
    begin = last = 0
    for _, end in (*spans(paragraph), (0, len(paragraph))):
        if end - begin > longest and last > begin:
            yield paragraph[begin:last].strip()
            begin = last
        while end - begin > longest:  # one sentence
            space = paragraph.rfind(" ", begin + longest // 2, begin + longest)
            stop = space if space > 0 else begin + longest
            yield paragraph[begin:stop].strip()
            begin = stop
        last = end
    if rest := paragraph[begin:].strip():
        yield rest
