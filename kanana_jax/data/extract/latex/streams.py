"""The stack of token streams from which TeX reads, and the parsing of arguments."""

from collections.abc import Iterator

from kanana_jax.data.extract.latex import lexer
from kanana_jax.data.extract.latex.lexer import is_blank
from kanana_jax.data.extract.markup import Report

# For comparison: a book has about a million tokens.
MAX_TOKENS = 8_000_000
# Groups and branches that never end; each costs a scan to the end of the document.
MAX_RUNAWAYS = 20


class Streams:
    """Tokens from files and expansions, the newest first.

    Attributes:
      stack: the streams; the top one is read until it is empty, then the one below continues.
      files: open files, as (stack position at which the file began, path).
      runaways: number of groups that never ended.
    """

    def __init__(self, report: Report):
        self.report = report
        self.stack: list[Iterator[str]] = []
        self.files: list[tuple[int, str]] = []
        self.runaways = 0

    def next(self) -> str | None:
        while self.stack:
            token = next(self.stack[-1], None)
            if token is not None:
                return token
            self.stack.pop()
            while self.files and self.files[-1][0] >= len(self.stack):
                self.files.pop()
        return None

    def push(self, parts: list[str]) -> None:
        if parts:
            self.stack.append(iter(parts))

    def skip_blanks(self) -> str | None:
        token = self.next()
        while token is not None and is_blank(token):
            token = self.next()
        return token

    def argument(self) -> list[str] | None:
        """Reads the next argument; returns None and reads nothing if it never ends."""
        token = self.skip_blanks()
        if token is None:
            return None
        if token != "{":
            if token[0] in "\\$}&~#\x01\x02" or token == lexer.PARAGRAPH:
                if token in ("}", lexer.PARAGRAPH, "&"):
                    self.push([token])
                    return None
                return [token]
            token = token.lstrip()
            self.push([token[1:]] if token[1:] else [])
            return [token[0]]
        parts: list[str] = []
        depth = 1
        # If braces are broken again and again, reading to the end each time would be quadratic.
        longest = MAX_TOKENS if self.runaways <= MAX_RUNAWAYS else 20
        while len(parts) < longest and (token := self.next()) is not None:
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return parts
            parts.append(token)
        self.runaways += 1
        self.report.count("unbalanced")
        self.push(["{", *parts])
        return None

    def option(self) -> list[str] | None:
        """Reads the tokens of `[…]` if that comes next, otherwise returns None."""
        read: list[str] = []
        token = self.next()
        while token is not None and is_blank(token):
            read.append(token)
            token = self.next()
        if token is None or not token.lstrip().startswith("["):
            self.push([*read, token] if token is not None else read)
            return None
        parts, depth, token = [], 0, token.lstrip()[1:]
        read.append("[" + token)
        while True:
            if depth == 0 and token[:1] not in ("\\", lexer.CODE) and "]" in token:
                before, _, after = token.partition("]")
                parts += [before] if before else []
                self.push([after] if after else [])
                return parts
            depth += (token == "{") - (token == "}")
            parts += [token] if token else []
            token = self.next()
            if token is None or len(parts) > 200 or token == lexer.PARAGRAPH:
                self.runaways += 1
                self.push([*read, token] if token is not None else read)
                return None
            read.append(token)

    def star(self) -> bool:
        token = self.next()
        if token is not None and token.startswith("*"):
            self.push([token[1:]] if token[1:] else [])
            return True
        self.push([token] if token is not None else [])
        return False

    def word(self) -> str:
        """Reads the next argument as text, for names of files and environments."""
        return lexer.join(self.argument() or []).strip()
