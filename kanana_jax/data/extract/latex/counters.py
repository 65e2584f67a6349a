"""LaTeX's numbers of sections, floats, equations and theorems, needed to render references."""

from collections.abc import Mapping

_LEVELS = ("chapter", "section", "subsection", "subsubsection")
_KINDS = {"chapter": "Chapter", "section": "Section", "subsection": "Section", "subsubsection": "Section"}


class Counters:
    """Counters that work like `\\refstepcounter`.

    Attributes:
      anchor: the (kind, number) that a `\\label` refers to: the counter stepped last.
      labels: label → (kind, number).
    """

    def __init__(self, theorems: Mapping[str, tuple[str, str, str]]):
        self._theorems = theorems
        self._headings = [0] * len(_LEVELS)
        self._floats: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._equation, self._appendix, self._chapters = 0, False, False
        self.anchor: tuple[str, str] = ("Section", "")
        self.labels: dict[str, tuple[str, str]] = {}

    def label(self, key: str) -> None:
        self.labels.setdefault(key.strip(), self.anchor)

    def heading(self, name: str, has_chapters: bool) -> None:
        if name not in _LEVELS:
            return
        self._chapters = has_chapters
        level = _LEVELS.index(name)
        self._headings[level] += 1
        self._headings[level + 1 :] = [0] * (len(_LEVELS) - level - 1)
        for theorem, (_, _, within) in self._theorems.items():
            if within == name:
                self._counts[theorem] = 0
        self.anchor = (_KINDS[name], self._number(level))

    def _number(self, level: int) -> str:
        numbers = self._headings[0 if self._chapters else 1 : level + 1]
        texts = [str(n) for n in numbers]
        if self._appendix and texts:
            texts[0] = chr(ord("A") + min(max(numbers[0] - 1, 0), 25))
        return ".".join(texts)

    def appendix(self) -> None:
        self._appendix = True
        self._headings = [0] * len(_LEVELS)

    def float(self, kind: str) -> None:
        self._floats[kind] = self._floats.get(kind, 0) + 1
        self.anchor = (kind, str(self._floats[kind]))

    def equation_row(self) -> None:
        self._equation += 1
        self.anchor = ("Equation", str(self._equation))

    def unnumbered_row(self) -> None:
        self._equation = max(0, self._equation - 1)

    def item(self, number: int) -> None:
        self.anchor = ("Item", str(number))

    def theorem(self, name: str) -> str:
        """The number of the next theorem of a kind; "" for unnumbered kinds."""
        title, counter, _ = self._theorems[name]
        if not counter:
            return ""
        self._counts[counter] = self._counts.get(counter, 0) + 1
        within = self._theorems.get(counter, ("", "", ""))[2]
        prefix = f"{self._number(_LEVELS.index(within))}." if within in _LEVELS else ""
        number = f"{prefix}{self._counts[counter]}"
        self.anchor = (title, number)
        return number
