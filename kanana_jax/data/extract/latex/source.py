"""Random access to a document's tokens: groups, optional arguments, and the ends of formulas."""

from kanana_jax.data.extract.latex import lexer
from kanana_jax.data.extract.latex.lexer import is_blank


class Source:
    """Tokens with matched braces and environments.

    Attributes:
      braces: for each `{`, the index of its `}`; −1 if there is none.
      environments: for each `\\begin`, the index of its `\\end`.
    """

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.braces, self.environments = _matches(tokens)
        self._no_closer: set[str] = set()

    def blanks(self, at: int) -> int:
        while at < len(self.tokens) and is_blank(self.tokens[at]):
            at += 1
        return at

    def group(self, at: int) -> tuple[int, int] | None:
        """The index after the `{` of the group at `at`, and the index of its `}`; None if there is no group."""
        at = self.blanks(at)
        if at < len(self.tokens) and self.tokens[at] == "{" and self.braces[at] > at:
            return at + 1, self.braces[at]
        return None

    def raw(self, at: int) -> tuple[str, int]:
        """The source of the next group, and the index after it; "" if there is none."""
        group = self.group(at)
        if group is None:
            return "", at
        return lexer.join(self.tokens[group[0] : group[1]]), group[1] + 1

    def option(self, at: int) -> tuple[str, int]:
        """The source of the optional argument `[…]` at `at`, and the index after it; "" if there is none."""
        start = self.blanks(at)
        if start >= len(self.tokens) or not self.tokens[start].lstrip().startswith("["):
            return "", at
        parts = []
        here = start
        while here < min(start + 200, len(self.tokens)) and self.tokens[here] != lexer.PARAGRAPH:
            token = self.tokens[here]
            if token == "{" and self.braces[here] > here:
                parts.append(lexer.join(self.tokens[here : self.braces[here] + 1]))
                here = self.braces[here] + 1
                continue
            if "]" in token and token[0] != "\\":
                before, _, after = token.partition("]")
                parts.append(before)
                self.tokens[here] = after
                return "".join(parts).lstrip()[1:].strip(), here if after else here + 1
            parts.append(token)
            here += 1
        return "", at

    def star(self, at: int) -> tuple[bool, int]:
        if at < len(self.tokens) and self.tokens[at].startswith("*"):
            self.tokens[at] = self.tokens[at][1:]
            return True, at if self.tokens[at] else at + 1
        return False, at

    def find_closer(self, at: int, closer: str) -> int:
        if closer in self._no_closer:
            return -1
        simple = -1
        while at < len(self.tokens):
            token = self.tokens[at]
            if token == closer:
                return at
            if closer == "$" and token == lexer.PARAGRAPH:
                return simple
            if closer == "$" and token == "{" and at < self.braces[at]:
                # A dollar inside braces belongs to text within the formula; it is used only if there is no other.
                inner = self.braces[at]
                if simple < 0 and inner - at < 200 and closer in self.tokens[at:inner]:
                    simple = self.tokens.index(closer, at, inner)
                at = inner
            at += 1
        self._no_closer.add(closer)
        return simple


def _matches(tokens: list[str]) -> tuple[list[int], dict[int, int]]:
    """For each `{` the index of its `}` (−1 if none), and for each `\\begin` the index of its `\\end`."""
    braces, environments = [-1] * len(tokens), {}
    open_braces: list[int] = []
    open_environments: list[tuple[str, int]] = []
    for i, token in enumerate(tokens):
        if token == "{":
            open_braces.append(i)
        elif token == "}" and open_braces:
            braces[open_braces.pop()] = i
        elif token.startswith("\\begin{"):
            open_environments.append((token[7:-1], i))
        elif token.startswith("\\end{"):
            name = token[5:-1]
            # Skip environments that were never closed, a few levels deep.
            for back in range(1, min(len(open_environments), 8) + 1):
                if open_environments[-back][0] == name:
                    environments[open_environments[-back][1]] = i
                    del open_environments[-back:]
                    break
    return braces, environments
