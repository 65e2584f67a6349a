"""Documents as passages: parts that can be found, read and cited on their own.

A section's heading, behind those of the sections around it, stays with every passage of the section. Paragraphs of a
section are put together up to a length; one that is longer is cut between sentences, and a sentence that is longer at
a space.
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
      id: the document's, and the passage's number in it behind `#`.
      text: as the document has it.
      document: the id of the document: of a file in a folder, its name there.
      title: of the document; may be empty.
      heading: of the section, behind those above it ('Refunds › Deadlines'); may be empty.
      questions: that the document brings along, each with its answer, which is in the text.
    """

    id: str
    text: str
    document: str
    title: str = ""
    heading: str = ""
    questions: tuple[tuple[str, str], ...] = ()

    @property
    def searched(self) -> str:
        """What a search looks at: title, heading and text."""
        return "\n".join(dict.fromkeys((*self._names, self.text)))

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return ", ".join(dict.fromkeys((self.document, *self._names)))

    @property
    def _names(self) -> list[str]:
        """Title and heading, of which the first may begin the second."""
        held = self.heading == self.title or self.heading.startswith(f"{self.title} › ")
        return [name for name in ("" if held else self.title, self.heading) if name]


@dataclasses.dataclass(frozen=True)
class Passages:
    """Passages of documents.

    Attributes:
      documents: that have passages.
      left_out: those that could not be read, each with the reason.
    """

    passages: tuple[Passage, ...]
    documents: int
    left_out: tuple[Broken, ...] = ()


def of_text(text: str, longest: int = 800) -> list[tuple[str, str]]:
    """The heading and text of each passage of a text.

    Args:
      longest: characters of a passage, at most.

    Raises:
      ValueError: a length under 50.
    """
    if longest < 50:
        raise ValueError("a passage has at least 50 characters")
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
    """Questions and answers of a document's `meta.questions`: `[{"question", "answer"}]`; others are passed over."""
    rows = [row for row in given if isinstance(row, dict)] if isinstance(given, list) else []
    pairs = [(row.get("question"), row.get("answer")) for row in rows]
    return [(q, a) for q, a in pairs if isinstance(q, str) and isinstance(a, str) and q.strip() and a.strip()]


def of_folder(path: str, longest: int = 800) -> Passages:
    """The passages of a file, folder or address, in any form that `records.read` knows (PDF, HTML, Markdown, jsonl …).

    Raises:
      UserError: nothing is there, or nothing that can be read.
    """
    return of_records(records.read(path, source="documents"), path, longest)


def of_records(found: Iterable[Record | Broken], path: str, longest: int = 800) -> Passages:
    """The passages of records and what could not be read.

    Raises:
      UserError: none could be read.
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
    """The headings and body of each section; lines of code that begin with `#` are no headings.

    A heading with nothing below it is a body: '## Refunds within seven days' may be all that a page tells.
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
    """The heading, with those above it, and the body of a section before a heading of a level (0: the end)."""
    names, text = [name for _, name in path], "\n".join(body)
    if path and not text.strip() and level <= path[-1][0]:
        names, text = names[:-1], names[-1]
    return " › ".join(names), text


def _paragraphs(body: str) -> list[str]:
    """Runs of lines between empty ones."""
    parts = re.split(r"\n[ \t]*\n", body)
    return [part.strip("\n").rstrip() for part in parts if part.strip()]


def _packed(parts: list[str], longest: int) -> Iterator[str]:
    """Paragraphs put together as long as they fit."""
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
    """A paragraph in pieces that end where a sentence does, or else a word."""
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
