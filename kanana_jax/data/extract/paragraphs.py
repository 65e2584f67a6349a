"""Joins the lines of a page layout into paragraphs.

A line continues on the next line if that line's first word would not have fitted after it. This depends on the column's
edge, not on the number of characters, which is meaningless when scripts of two widths are mixed. The next line's
distance, size and indentation, bullets and numbers mark a new paragraph.
"""

import bisect
import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from kanana_jax.data.extract.spacing import Spacing

# In ems.
_SLACK = 0.3  # by how much lines may miss the edge of their column
_INDENT = 0.6
# A new paragraph begins if the line distance exceeds the usual one, or the letter size the previous one, by this
# factor.
_GAP = 1.3
_GROWN = 1.3
# A line without a full stop continues if it fills this share of its column, whatever word follows.
_FILLED = 0.85
_ENDS = ".?!。？！:：;；…"
_CLOSERS = "\"'”’」』)）]］】〉》"
_BULLET = re.compile(r"[•‣▪●○◦■□◆◇▶▷►☞※・·∙–—*-]\s?(?=\S)|[-–—•]$")
_NUMBER = re.compile(
    r"(?:\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5}|[가-하])[.)](?=\s|[^\s\d.,A-Za-z])|\d{1,3}(?:\.\d{1,3}){1,4}\.?\s|[①-⑳]|"
    r"第\s?[\d一二三四五六七八九十百]{1,5}\s?[章節条項部]|제\s?\d{1,4}\s?[장절조항부]|Chapter\s\d|Appendix\s[A-Z\d])"
)
_PROMPT = re.compile(r"(?:[$#%>]|>>>|\w{1,20}@\w{1,20}:\S{0,40}[$#])\s")
_CODE = re.compile(r"--?\w|[=_/\\{}$;|<>#&]|::|\(\)|\.\w")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_LEADERS_END = re.compile(r"[\d.．․‥…·・]")
_LEADERS = re.compile(
    r"(?<![.．․‥…·・])(?<![.．․‥…·・]\s)(?:[.．․‥…·・]\s?){4,}\d{0,5}$|(?<![.․‥…·])[.․‥…·]{3,}\s?\d{1,5}$"
)


class Box(NamedTuple):
    """A rectangle on a page, in points from the lower left corner."""

    left: float
    bottom: float
    right: float
    top: float


@dataclasses.dataclass(slots=True)
class Line:
    """A line and its place along and across the reading direction, in points.

    Attributes:
      start, end: where the line begins and ends along the reading direction.
      base: its position across the reading direction, which decreases from line to line; None if unknown.
      em: letter height.
      unit: length of its first unbreakable unit (word or character).
      hyphenated: whether a word is hyphenated at its end.
      spaced: whether it ends with a space.
      fixed: whether it is set in a monospaced font, like code.
    """

    text: str
    page: int
    start: float
    end: float
    base: float | None
    em: float
    unit: float
    hyphenated: bool = False
    spaced: bool = False
    fixed: bool = False

    @classmethod
    def of(
        cls,
        text: str,
        page: int,
        first: Box | None,
        last: Box | None,
        unit: Box | None,
        **more: bool,
    ) -> "Line":
        """A line from the boxes of its first character, its last, and the last of its first unbreakable unit."""
        if first is None or last is None:  # positions unknown: count columns, as on a typewriter
            return cls(text, page, 0.0, float(width(text)), None, 1.0, 2.0, **more)
        unit = unit or first
        if abs(last.bottom - first.bottom) > abs(last.left - first.left) and len(text) > 2:  # vertical text
            em = max(first.right - first.left, last.right - last.left)
            return cls(text, page, -first.top, -last.bottom, first.left, em, first.top - unit.bottom, **more)
        em = max(first.top - first.bottom, last.top - last.bottom)
        return cls(text, page, first.left, last.right, last.bottom, em, unit.right - first.left, **more)


def width(text: str) -> int:
    """The number of columns in a monospaced font; East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def join(lines: Sequence[Line]) -> str:
    """Joins lines, given in reading order, to paragraphs; each paragraph is one line of the result."""
    if not lines:
        return ""
    page = _Page(lines)
    goes_on = [False] + [page.goes_on(i) for i in range(1, len(lines))]
    breaks = [(lines[i - 1].text, lines[i].text) for i in range(1, len(lines)) if goes_on[i]]
    spacing = Spacing([line.text for line in lines], [line.spaced for line in lines], breaks)
    out = [lines[0].text]
    for i in range(1, len(lines)):
        before, line = lines[i - 1], lines[i]
        if goes_on[i] or before.hyphenated and line.text[:1].islower():
            if before.hyphenated or re.search(r"[^\W\d_]-$", before.text) and line.text[:1].isalnum():
                out[-1] = spacing.hyphened(out[-1].removesuffix("-"), line.text)
            else:
                out.append(" " if before.spaced else spacing.between(before.text, line.text))
        else:
            out += ["-" if before.hyphenated else "", "\n"]
        out.append(line.text)
    return "".join(out)


class _Page:
    """The typical layout of a document: the edges of its columns and the distance between lines."""

    def __init__(self, lines: Sequence[Line]):
        self.lines = lines
        # The number of lines across a place is that of lines that begin before it, minus those that end before it.
        self._starts, self._ends = sorted(line.start for line in lines), sorted(line.end for line in lines)
        self.is_wide = [_WIDE.search(line.text) is not None for line in lines]
        self.by_wide = sum(self.is_wide) > 0.5 * len(lines) and not any(line.fixed for line in lines)
        self.edges = self._edges_of(lines)
        # If most lines are Japanese, Chinese or Korean, they determine the edges of columns. Narrow lines beyond an
        # edge are code, if no font identifies code.
        wide = self._edges_of([line for line, is_wide in zip(lines, self.is_wide) if is_wide]) if self.by_wide else []
        self.widest = wide[-1] if wide else None
        open_ended = [line for line in lines if _HANGUL.match(line.text[-1:])]
        full = sum(any(abs(line.end - edge) < 0.6 * line.em for edge in self._nearest(line.end)) for line in open_ended)
        # If nearly all Korean lines reach the edge, lines are broken within words.
        self.parts_words = full > 0.8 * len(open_ended)
        self.is_typed = sum(line.fixed for line in lines) > 0.5 * len(lines)
        steps: dict[int, Counter[float]] = {}
        for before, line in zip(lines, lines[1:]):
            step = _step(before, line)
            if step is not None and 0.5 < step / max(before.em, 0.1) < 3:
                steps.setdefault(round(before.em), Counter())[round(2 * step) / 2] += 1
        # Of the frequent distances, the smallest is between lines; larger ones are between paragraphs.
        self.leading = {
            em: min(step for step, n in found.items() if n >= 0.25 * max(found.values())) for em, found in steps.items()
        }

    def _edges_of(self, lines: Sequence[Line]) -> list[int]:
        """Places where many lines end and few continue."""
        ends = Counter(round(line.end) for line in lines)
        near = {end: sum(ends[end + i] for i in (-1, 0, 1)) for end in ends}
        return sorted(end for end, n in near.items() if n >= max(3, 0.02 * len(lines), 0.2 * self._across(end)))

    def _nearest(self, end: float) -> list[int]:
        at = bisect.bisect(self.edges, end)
        return self.edges[max(0, at - 1) : at + 1]

    def _across(self, end: float) -> int:
        """The number of lines that extend across a place, which is small at the edge of a column."""
        return bisect.bisect_left(self._starts, end - 2) - bisect.bisect_right(self._ends, end + 2)

    def goes_on(self, i: int) -> bool:
        """Whether line `i` continues the line before it."""
        before, line = self.lines[i - 1], self.lines[i]
        if before.fixed and line.fixed and not self.is_typed:  # code
            return False
        if _PROMPT.match(line.text) or _PROMPT.match(before.text) or self._is_code(i - 1) or self._is_code(i):
            return False
        if _LEADERS_END.match(before.text[-1:]) and _LEADERS.search(before.text) or _BULLET.match(line.text):
            return False
        if not 1 / _GROWN < line.em / max(before.em, 1e-6) < _GROWN:
            return False
        is_ended = before.text.rstrip(_CLOSERS)[-1:] in _ENDS
        step = _step(before, line)
        em = before.em
        if step is None:
            if is_ended:
                return False
        elif step > _GAP * self.leading.get(round(em), 1.5 * em) or step < 0.3 * em:
            return False
        marked = bool(_NUMBER.match(line.text))
        indented = line.start - before.start > _INDENT * em
        hangs = indented and bool(_BULLET.match(before.text) or _NUMBER.match(before.text))
        if marked and (is_ended or _NUMBER.match(before.text) or indented or before.text[-1:].isdigit()):
            return False
        if indented and is_ended and not hangs:
            return False
        edge = self._edge(i - 1, is_ended)
        left = edge - before.end
        unit = em if self.parts_words and _HANGUL.match(line.text) else line.unit
        if left < unit + _SLACK * em * 0.5:
            return True
        filled = (before.end - before.start) / max(edge - before.start, 1e-6)
        return not is_ended and not indented and filled > _FILLED and before.end >= line.end - em

    def _is_code(self, i: int) -> bool:
        """Whether a line of narrow characters is code: it extends beyond the other lines, or their edge is unknown."""
        line = self.lines[i]
        if not self.by_wide or self.is_wide[i] or line.base is None:
            return False
        passes = self.widest is None or line.end > self.widest + line.em
        return passes and len(_CODE.findall(line.text)) > 1

    def _edge(self, i: int, strictly: bool) -> float:
        """The column edge of line `i`, from the lines around it and, unless `strictly`, from the typical layout."""
        line = self.lines[i]
        page, start, em, around = line.page, line.start, max(line.em, 1e-6), [line.end]
        for near in (self.lines[max(0, i - 4) : i][::-1], self.lines[i + 1 : i + 5]):
            for other in near:
                if other.page != page or abs(other.start - start) > 3 * line.em:
                    break
                if not 1 / _GROWN < other.em / em < _GROWN:
                    break
                around.append(other.end)
        edge = max(around)
        if not strictly and sum(other > edge - 1.5 for other in around) >= 3:
            return edge
        at = bisect.bisect_left(self.edges, line.end - _SLACK * line.em)
        usual = self.edges[at] if at < len(self.edges) else None
        return max(edge, usual or edge) if strictly else usual or edge


def _step(before: Line, line: Line) -> float | None:
    """The distance from one line down to the next; None across pages and columns."""
    if before.page != line.page or before.base is None or line.base is None or line.base > before.base + before.em:
        return None
    return before.base - line.base
