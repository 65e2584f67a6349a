"""Labels 0–5 of documents, by id and text, from a file and from an annotator for the rest.

Every new label is written at once, so that no document is sent to an annotator (and paid for) twice.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from kanana_jax.data.quality.annotate import Annotator, Endpoint
from kanana_jax.data.quality.documents import Key, key_of
from kanana_jax.data.read import jsonl
from kanana_jax.data.read.record import Record
from kanana_jax.errors import UserError


def read_labels(path: pathlib.Path) -> dict[Key, int | None]:
    """Reads labels by id and hash of the text from lines `{"id", "label", "text"?}`; a document's last label counts.

    `text` is the hash of the text (`documents.key_of`). A line without it applies to the only document with that id;
    its hash is "".

    Raises:
      UserError: the file cannot be read, or a line is not a label; names the line.
    """
    labels: dict[Key, int | None] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"labels '{path}' cannot be read ({error.strerror})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = jsonl.parse(line)
            label, text = row["label"], row.get("text", "")
            if not isinstance(row["id"], str) or not isinstance(text, str):
                raise ValueError
            if not (label is None or (type(label) is int and 0 <= label <= 5)):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f'{path}:{number} is not a label: a line is {{"id": "…", "label": 0 … 5}}; delete or correct it'
            ) from error
        labels[row["id"], text] = label
    return labels


class Labels:
    """Known labels, and an annotator for the rest, whose labels are appended to the file at once."""

    def __init__(self, path: pathlib.Path, annotator: Annotator | None, batch: int = 32):
        self._path, self._annotator, self._batch = path, annotator, batch
        if path.is_file():
            _cut_torn_line(path)
        self._known = read_labels(path) if path.is_file() else {}
        self._by_id: dict[str, str] = {identity: "" for identity, text in self._known if not text}

    def checked(self, documents: Iterable[Record]) -> Iterator[Record]:
        """Yields the documents and checks that a label with only an id applies to one document.

        Raises:
          UserError: several documents have the id of such a label.
        """
        for record in documents:
            if record["id"] in self._by_id:
                identity, text = key_of(record)
                if self._by_id[identity] not in ("", text):
                    raise UserError(
                        f"{self._path} gives a label to '{identity}', which several documents of the pool are called: "
                        f'name each as {{"id": …, "text": "{text}", "label": …}}, the hash of its text'
                    )
                self._by_id[identity] = text
            yield record

    def _find(self, key: Key) -> Key | None:
        """The key under which a document's label is known; None if it has none."""
        return key if key in self._known else (key[0], "") if (key[0], "") in self._known else None

    def __call__(self, documents: Sequence[Record]) -> list[int | None]:
        """The labels of documents, annotated where necessary; None where there is no label."""
        keyed = [(key_of(record), record) for record in self.checked(documents)]
        new = list({key: record for key, record in keyed if self._find(key) is None}.values())
        if self._annotator is not None and new:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:

                def keep(record: Record, label: int | None, reason: str) -> None:
                    key = key_of(record)
                    row = {"id": key[0], "text": key[1], "label": label} | ({"reason": reason} if reason else {})
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                    self._known[key] = label

                for i in range(0, len(new), self._batch):
                    batch = new[i : i + self._batch]
                    if isinstance(self._annotator, Endpoint):  # answers are paid for: keep each one
                        self._annotator(batch, keep)
                        continue
                    for record, label in zip(batch, self._annotator(batch)):
                        keep(record, label, "")
        found = [self._find(key) for key, _ in keyed]
        return [None if key is None else self._known[key] for key in found]


def _cut_torn_line(path: pathlib.Path) -> None:
    """Removes an incomplete last line, left by a killed run; its document is labelled again."""
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        try:
            json.loads(data[data.rfind(b"\n") + 1 :])
        except ValueError:
            os.truncate(path, data.rfind(b"\n") + 1)
        else:
            with path.open("ab") as file:
                file.write(b"\n")
