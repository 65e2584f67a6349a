"""TeX's gullet (expansion processor), as far as documents need it: file inclusion, macros, conditionals.

Input is a stack of token streams. All expansion has a budget, so that recursive files and macros end; input beyond the
budget is left as written and counted.
"""

import dataclasses
from collections.abc import Callable

from kanana_jax.data.extract.latex import lexer
from kanana_jax.data.extract.latex.lexer import is_blank, name_of
from kanana_jax.data.extract.latex.streams import MAX_RUNAWAYS, MAX_TOKENS, Streams
from kanana_jax.data.extract.markup import Report, words

# Budget of expansions (and of tokens that they produce): a constant and an allowance per byte of the document. Papers
# that use macros heavily need one expansion per 20 bytes.
_EXPANSIONS, _EXPANSIONS_PER_BYTE = 20_000, 0.25
_PUSHED, _PUSHED_PER_BYTE = 500_000, 10
MAX_INCLUDES = 2_000
_MAX_STACK = 10_000

# Commands that the renderer handles, which keep their meaning even if a preamble redefines them.
_KEPT = words(
    "begin end section subsection subsubsection chapter part paragraph subparagraph title author date abstract caption "
    "label ref eqref cref Cref autoref cite citep citet item footnote maketitle input include includegraphics textbf "
    "textit emph texttt documentclass usepackage def newcommand renewcommand left right frac sqrt text mathbb mathbf "
    "mathcal mathrm operatorname centering hline url href par bibliography bibitem appendix"
)
# Macros with one of these in their body program TeX and cannot be expanded by substitution.
_PROGRAMMING = words(
    "expandafter csname futurelet @ifnextchar @ifstar catcode afterassignment noexpand @testopt aftergroup everypar "
    "numexpr romannumeral uppercase lowercase write openout immediate halign valign hbox vbox setbox advance hskip"
)
_PRIMITIVE_IFS = words("if ifx ifnum ifdim ifcat ifodd ifmmode ifvmode ifhmode ifinner ifdefined ifcsname ifcase ifeof "
                       "ifpdf ifxetex ifluatex iftrue iffalse ifPDFTeX ifvoid ifXeTeX ifLuaTeX")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Macro:
    """A macro: number of arguments, default of an optional first argument, and body (None: not expandable)."""

    arguments: int
    default: tuple[str, ...] | None
    body: tuple[str, ...] | None


class Gullet(Streams):
    """Expands a document.

    Args:
      include: (name, kind) → path and source of `\\input{name}` (kind "tex") or of a package ("sty"); None if there is
        no such file.

    Attributes:
      theorems: environment → (title, shared counter, counter that it is numbered within).
    """

    def __init__(self, include: Callable[[str, str], tuple[str, str] | None], report: Report):
        super().__init__(report)
        self.include = include
        self.macros: dict[str, Macro] = {}
        self.environments: dict[str, tuple[Macro, tuple[str, ...]]] = {}
        self.theorems: dict[str, tuple[str, str, str]] = {}
        self.flags: dict[str, bool] = {"iftrue": True, "iffalse": False}
        self.out: list[str] = []
        self._expansions_left, self._pushes_left = _EXPANSIONS, _PUSHED
        self._includes, self._packages, self._packages_open = 0, 0, 0
        self._branches = 0  # number of open conditionals whose first branch is being read
        self._commands = self._command_table()

    def run(self, path: str, source: str) -> list[str]:
        """Expands the document and returns all its tokens."""
        self._read(path, source)
        return self.out

    def _read(self, path: str, source: str) -> None:
        self._enter(path, source)
        while (token := self.next()) is not None:
            if len(self.out) >= MAX_TOKENS:
                self.report.count("cut_after_tokens", MAX_TOKENS)
                break
            name = name_of(token)
            if not name:
                self.out.append(token)
            elif name in self._commands:
                self._commands[name](token)
            elif name in self.flags or name in _PRIMITIVE_IFS:
                self._conditional(name)
            elif name in self.macros:
                self._expand(token, self.macros[name])
            else:
                self.out.append(token)

    # Macros.

    def _expand(self, token: str, macro: Macro) -> None:
        if macro.body is None or self._expansions_left <= 0 or len(self.stack) > _MAX_STACK:
            self.report.count("macros_not_expanded")
            self.out.append(token)
            return
        if macro.arguments and self.runaways > MAX_RUNAWAYS:
            self.out.append(token)
            return
        arguments: list[list[str]] = []
        if macro.default is not None:
            option = self.option()
            arguments.append(list(macro.default) if option is None else option)
        while len(arguments) < macro.arguments:
            argument = self.argument()
            if argument is None:
                self.out.append(token)
                for read in reversed(arguments):
                    self.push(["{", *read, "}"])
                return
            arguments.append(argument)
        self._expansions_left -= 1
        self.report.count("macros_expanded")
        self._substitute(macro.body, arguments)

    def _substitute(self, body: tuple[str, ...], arguments: list[list[str]]) -> None:
        size = sum(len(arguments[n]) if (n := _parameter(part, arguments)) is not None else 1 for part in body)
        self._pushes_left -= size
        if self._pushes_left < 0:  # e.g. arguments that double at every expansion
            self.report.count("macros_not_expanded")
            return
        parts: list[str] = []
        for part in body:
            n = _parameter(part, arguments)
            if n is not None:
                parts += arguments[n]
            else:
                parts.append(part[1:] if part.startswith("##") else part)
        self.push(parts)

    def _define(self, name: str, macro: Macro) -> None:
        if not name or name in _KEPT:
            return
        body = macro.body
        if body is not None and any(name_of(t) in _PROGRAMMING for t in body if t[0] == "\\"):
            macro = dataclasses.replace(macro, body=None)
            self.report.name("macros_opaque", name)
        self.macros[name] = macro

    def _new_command(self, token: str) -> None:
        self.star()
        name = self.argument()
        count, default = self.option(), self.option()
        body = self.argument()
        if name and body is not None:
            first = next((t for t in name if t[0] == "\\"), "")
            if name_of(token) == "providecommand" and name_of(first) in self.macros:
                return
            number = _number(count)
            self._define(name_of(first), Macro(number, tuple(default) if default is not None else None, tuple(body)))

    def _def(self, token: str) -> None:
        name = self.skip_blanks()
        pattern: list[str] = []
        while (part := self.next()) is not None and part != "{":
            pattern.append(part)
            if len(pattern) > 40 or part == lexer.PARAGRAPH:
                self.push(pattern)
                return
        if part is None or name is None:
            return
        self.push(["{"])
        body = self.argument()
        if body is None:
            return
        simple = [p for p in pattern if not is_blank(p)]
        parameters = simple == [f"#{i + 1}" for i in range(len(simple))]
        self._define(name_of(name), Macro(len(simple), None, tuple(body) if parameters else None))

    def _let(self, token: str) -> None:
        name, other = self.skip_blanks(), self.skip_blanks()
        if other is not None and other.startswith("="):
            other = other[1:].strip() or self.skip_blanks()
        if name and other:
            self._define(name_of(name), self.macros.get(name_of(other), Macro(0, None, (other,))))

    def _operator(self, token: str) -> None:
        star = "*" if self.star() else ""
        name, text = self.argument(), self.argument()
        if name and text is not None:
            self._define(name_of(name[0]), Macro(0, None, ("\\operatorname" + star, "{", *text, "}")))

    def _new_environment(self, token: str) -> None:
        self.star()
        name = self.word()
        count, default = self.option(), self.option()
        begin, end = self.argument(), self.argument()
        if name and begin is not None and end is not None and name not in ("document", "abstract", "figure", "table"):
            macro = Macro(_number(count), tuple(default) if default is not None else None, tuple(begin))
            self.environments[name] = (macro, tuple(end))

    def _new_theorem(self, token: str) -> None:
        star = self.star()
        name, shared, title, within = self.word(), self.option(), self.argument(), self.option()
        if name and title is not None:
            counter = "" if star else lexer.join(shared).strip() if shared else name
            self.theorems[name] = (lexer.join(title).strip(), counter, lexer.join(within or []).strip())

    def _begin_end(self, token: str) -> None:
        name = self.word()
        kind = name_of(token)
        if name in self.environments and name not in self.theorems:
            macro, end = self.environments[name]
            if kind == "begin":
                self._expand(f"\\begin{{{name}}}", macro)
            else:
                self._substitute(end, [])
        else:
            self.out.append(f"\\{kind}{{{name}}}")

    # Conditionals.

    def _conditional(self, name: str) -> None:
        value = self.flags.get(name)
        if value is None:
            self.report.count("conditionals_guessed")
            value = True
            if name in ("if", "ifx", "ifcat"):
                self.skip_blanks(), self.skip_blanks()
            elif name in ("ifnum", "ifdim", "ifodd", "ifcase", "ifdefined", "ifcsname"):
                token = self.next()
                while token is not None and token[0] == "\\":  # up to and including the number
                    token = self.next()
        if value or self._skip_branch(stop_at_else=True) == "else":
            self._branches += 1

    def _else_fi(self, token: str) -> None:
        if name_of(token) == "or" and not self._branches:
            self.out.append(token)
        elif self._branches:
            self._branches -= 1
            if name_of(token) == "else":
                self._skip_branch(stop_at_else=False)

    def _skip_branch(self, stop_at_else: bool) -> str:
        if self.runaways > MAX_RUNAWAYS:
            return ""
        skipped: list[str] = []
        depth = 0
        while (token := self.next()) is not None:
            name = name_of(token)
            if name in self.flags or name in _PRIMITIVE_IFS:
                depth += 1
            elif name == "fi" and depth:
                depth -= 1
            elif depth == 0 and (name == "fi" or (name == "else" and stop_at_else)):
                return name
            skipped.append(token)
        self.runaways += 1
        self.report.count("unbalanced")
        self.push(skipped)
        return ""

    def _new_if(self, token: str) -> None:
        name = name_of(self.skip_blanks() or "")
        if name.startswith("if"):
            self.flags[name] = False
            for suffix, value in (("true", True), ("false", False)):
                self._commands[name[2:] + suffix] = lambda token, value=value: self.flags.__setitem__(name, value)

    def _if_then_else(self, token: str) -> None:
        _, yes, _ = self.argument(), self.argument(), self.argument()
        self.report.count("conditionals_guessed")
        self.push(yes or [])

    # Files.

    def _input(self, token: str) -> None:
        kind = name_of(token)
        following = self.skip_blanks()
        if following == "{":
            self.push(["{"])
            name = self.word()
            if kind in ("import", "subimport"):
                name = f"{name.rstrip('/')}/{self.word()}"
        elif kind == "input" and following is not None and following[0] not in "\\$}&~#":
            name, blank, rest = following.partition(" ")  # plain TeX's form: \input name
            self.push([blank + rest] if rest else [])
        else:
            self.push([following] if following is not None else [])
            return
        self._open(name, "tex")

    def _open(self, name: str, kind: str) -> None:
        self._includes += 1
        if self._includes > MAX_INCLUDES:
            self.report.count("includes_cut")
            return
        found = self.include(name, kind)
        if found is None:
            return
        path, source = found
        if any(path == opened for _, opened in self.files):
            self.report.name("include_loops", path)
            return
        self._enter(path, source)

    def _enter(self, path: str, source: str) -> None:
        self.files.append((len(self.stack), path))
        self.stack.append(lexer.tokens(source))
        self._expansions_left += int(len(source) * _EXPANSIONS_PER_BYTE)
        self._pushes_left += len(source) * _PUSHED_PER_BYTE

    def _package(self, token: str) -> None:
        self.option()
        for name in self.word().split(","):
            found = self.include(name.strip(), "sty") if self._packages < 50 and self._packages_open < 5 else None
            if found is not None:
                self._packages += 1
                self._packages_open += 1
                # Packages are read in a separate state, so that constructs left open do not swallow the document.
                saved = self.stack, self.files, self.out, self._branches
                self.stack, self.files, self.out, self._branches = [], [], [], 0
                self._read(*found)
                self.stack, self.files, self.out, self._branches = saved
                self._packages_open -= 1

    def _end_input(self, token: str) -> None:
        if self.files:
            height, _ = self.files.pop()
            del self.stack[height:]

    def _nothing(self, token: str) -> None:
        """Ignores prefixes and switches that have no effect on the text."""

    def _command_table(self) -> dict[str, Callable[[str], None]]:
        return {
            **dict.fromkeys(
                ("newcommand", "renewcommand", "providecommand", "DeclareRobustCommand"), self._new_command
            ),
            **dict.fromkeys(("NewDocumentCommand", "RenewDocumentCommand"), self._new_document_command),
            **dict.fromkeys(("def", "gdef", "edef", "xdef"), self._def),
            **dict.fromkeys(("DeclareMathOperator", "DeclareMathOperatorstar"), self._operator),
            **dict.fromkeys(("newenvironment", "renewenvironment"), self._new_environment),
            **dict.fromkeys(("input", "include", "subfile", "subfileinclude", "import", "subimport"), self._input),
            **dict.fromkeys(("usepackage", "RequirePackage"), self._package),
            **dict.fromkeys(("begin", "end"), self._begin_end),
            **dict.fromkeys(("else", "fi", "or"), self._else_fi),
            **dict.fromkeys(("long", "global", "protected", "makeatletter", "makeatother"), self._nothing),
            "let": self._let,
            "newtheorem": self._new_theorem,
            "newif": self._new_if,
            "ifthenelse": self._if_then_else,
            "endinput": self._end_input,
        }

    def _new_document_command(self, token: str) -> None:
        name, spec, body = self.argument(), self.argument(), self.argument()
        if name and spec is not None and body is not None:
            letters = lexer.join(spec).replace(" ", "")
            plain = set(letters) <= {"m"}
            self._define(name_of(name[0]), Macro(len(letters), None, tuple(body) if plain else None))


def _parameter(part: str, arguments: list[list[str]]) -> int | None:
    if len(part) == 2 and part[0] == "#" and part[1] in "123456789" and int(part[1]) <= len(arguments):
        return int(part[1]) - 1
    return None


def _number(option: list[str] | None) -> int:
    text = "".join(option or []).strip()
    return min(int(text), 9) if text.isascii() and text.isdigit() and len(text) < 3 else 0
