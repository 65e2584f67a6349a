"""LaTeX projects: files in place and in order, macros expanded, formulas as written."""

import gzip
import io
import tarfile
import zipfile

import pytest
from conftest import ROOT

from kanana_jax.data.extract import extract, latex
from kanana_jax.data.extract.markup import Report

PAPER = ROOT / "tests/data/extract/fixtures/paper"
FILES = {f.relative_to(PAPER).as_posix(): f.read_bytes() for f in sorted(PAPER.rglob("*")) if f.is_file()}
EXPECTED = (PAPER.parent / "paper.md").read_text().strip()


def text(source: str, **files: str) -> str:
    return latex.project({"main.tex": source.encode(), **{k: v.encode() for k, v in files.items()}}, Report()).text


def test_the_paper_whose_body_public_sets_put_before_its_introduction():
    """The example of arXiv:2502.18934: `\\input` expanded in place and in order."""
    result = latex.project(FILES, Report())
    assert result.text == EXPECTED
    assert result.title == "Compute-efficient models for two languages"
    assert result.report["include_loops_names"] == ["sections/method.tex"]
    assert result.report["missing_files_names"] == ["sections/lost"]


def test_order_does_not_depend_on_the_order_of_files():
    assert latex.project(dict(reversed(FILES.items())), Report()).text == EXPECTED


@pytest.mark.parametrize("form", ["tar.gz", "tar", "zip", "nested"])
def test_archives_give_the_same_text(form):
    buffer = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if form != "tar" else "w") as archive:
            for name, data in FILES.items():
                info = tarfile.TarInfo(f"src/{name}" if form == "nested" else name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    assert extract(buffer.getvalue(), "latex").text == EXPECTED


def test_one_gzipped_file_and_a_fragment():
    assert extract(gzip.compress(b"\\documentclass{a}\\begin{document}Hi\\end{document}"), "latex").text == "Hi"
    assert extract(b"\\section{A} b", "latex").text == "## A\n\nb"
    with pytest.raises(ValueError, match="not LaTeX"):
        latex.project({"a.bbl": b"x", "b.sty": b"y"}, Report())


def test_the_main_file_is_found():
    files = {
        "a.tex": "\\documentclass{x}\\begin{document}short\\end{document}",
        "ms.tex": "\\documentclass{x}\\input{b}\\begin{document}\\input{sub}\\end{document}",
        "b.tex": "% \\documentclass{x}",
        "sub.tex": "\\documentclass[ms]{subfiles}\\begin{document}sub\\end{document}" + " " * 500,
    }
    assert latex.main_file(files) == "ms.tex"
    assert latex.project({k: v.encode() for k, v in files.items()}, Report()).text == "sub"
    assert latex.documents({k: v.encode() for k, v in files.items()}) == ["a.tex", "ms.tex"]


@pytest.mark.parametrize(
    "source, shown",
    [
        (r"\newcommand{\R}{\mathbb{R}}$x\in\R$ and \(\R^n\)", r"$x\in\mathbb{R}$ and $\mathbb{R}^n$"),
        (r"\newcommand\a[2][d]{(#1|#2)}\a{x} \a[y]{z} \a w", "(d|x) (y|z) (d|w)"),
        (r"\def\a#1#2{#2#1}\a xy \a{1}{2}", "yx 21"),
        (r"\def\x{\alpha}$\x y$", r"$\alpha y$"),
        (r"\let\eps\varepsilon $\eps$", r"$\varepsilon$"),
        (r"\DeclareMathOperator{\tr}{tr}$\tr A$", r"$\operatorname{tr}A$"),
        (r"\newcommand{\x}{a}\renewcommand{\x}{b}\providecommand{\x}{c}\x", "b"),
        (r"\newenvironment{q}[1]{<#1>}{</>}\begin{q}{n}in\end{q}", "<n>in</>"),
        (r"\newif\ifa \ifa no\else yes\fi \atrue\ifa yes\else no\fi", "yesyes"),
        (r"\iffalse gone \ifx\a\b x\fi gone\fi stays", "stays"),
        ("a % comment \\input{x}\nb 5\\% c", "a b 5% c"),
        (r"\verb|a_b%c| and \url{http://x.y/a%20b_c}", "`a_b%c` and http://x.y/a%20b_c"),
        (r"\href{http://x}{text} \texttt{a\_b} \emph{e \textbf{f}}", "text `a_b` e f"),
        (r"na\"{\i}ve caf\'e \c{c}a \v{S} \o{} \ss", "naïve café ça Š ø ß"),
        (r"``q'' --- a--b\ldots{} x~y \S 3", "“q” — a–b… x y §3"),
        (r"\SI{3.5}{\kilo\meter\per\second} \num{1e5} \si{\kg}", "3.5 km/s 1 × 10⁵ kg"),
        (r"\textcolor{red}{x}\vspace{1cm}\hspace*{2mm}y\label{l}", "xy"),
        (r"x\footnote{see \emph{y}} z", "x (see y) z"),
        (r"x\textsuperscript{2} H\textsubscript{2}O", "x² H₂O"),
        (r"\cite{a,b} \cite[p.~3]{c} \ref{no:such}", "[a, b] [c, p. 3] no:such"),
        ("日本語の\n文章と\nEnglish\nwords", "日本語の文章と English words"),
        ("한국어\n문장", "한국어 문장"),
        (r"\[ a \] \begin{align} b &= c \\ d \end{align}", "$$a$$\n\n\\begin{align}\nb &= c \\\\ d\n\\end{align}"),
        (r"$a \text{ if $b$ } c$ x", r"$a \text{ if $b$ } c$ x"),
        ("price \\$5 and $ unclosed\n\nnext", "price $5 and \\$ unclosed\n\nnext"),
    ],
)
def test_commands(source, shown):
    assert text(source) == shown


def test_comments_stay_in_verbatim_and_comment_environments_go():
    source = "\\begin{comment}gone\\end{comment}\\begin{lstlisting}[language=Python]\nx = 1 % y\n  \\input{z}\n\\end{lstlisting}"
    assert text(source) == "```python\nx = 1 % y\n  \\input{z}\n```"


def test_of_figures_captions_tables_and_code_are_kept():
    source = (
        r"\begin{figure}\includegraphics{a}\tiny drawn \begin{tabular}{cc}a & b\\c & d\end{tabular}"
        r"\caption[short]{Long \emph{caption}.}\label{f}\begin{tikzpicture}\draw x;\end{tikzpicture}\end{figure}"
        r"\vskip 2.5em See \autoref{f}."
    )
    assert text(source) == "| a | b |\n| --- | --- |\n| c | d |\n\nFigure 1: Long caption.\n\nSee Figure 1."


def test_lists_nest_and_code_in_them_is_indented():
    source = (
        r"\begin{enumerate}\item a \begin{itemize}\item b\item[(x)] c\end{itemize}\item d"
        "\n\\begin{verbatim}\n  x\n\\end{verbatim}\n\\end{enumerate}"
    )
    assert text(source) == "1. a\n   - b\n   - (x) c\n2. d\n\n   ```\n     x\n   ```"


def test_numbers_follow_sections_and_floats():
    source = (
        r"\newtheorem{t}{Satz}[section]\newtheorem{l}[t]{Lemma}\newtheorem*{n}{Note}"
        r"\section{A}\section{B}\label{b}\subsection{C}\label{c}"
        r"\begin{t}\label{t}x\end{t}\begin{l}\label{l}y\end{l}\begin{n}z\end{n}"
        r"\begin{align}a\label{e1}\\b\nonumber\\c\label{e2}\end{align}"
        r"\ref{b} \ref{c} \cref{t} \cref{l} \eqref{e1} \eqref{e2}"
    )
    assert text(source).endswith("2 2.1 Satz 2.1 Lemma 2.2 (1) (2)")
    assert "**Note**" in text(source)


def test_local_packages_give_macros_and_cannot_swallow_the_document():
    package = "\\newcommand{\\name}{Kim}\\newcommand{\\bad}{\\iffalse {"
    source = "\\documentclass{a}\\usepackage{amsmath,mine}\\begin{document}\\name!\\end{document}"
    assert text(source, **{"mine.sty": package}) == "Kim!"


@pytest.mark.parametrize(
    "source",
    [
        r"\def\a{\a}\a end",
        r"\def\a{\b\b}\def\b{\a\a}\a end",
        r"\def\a#1{\a{#1#1}}\a{x} end",
        r"\newcommand{\a}[1][x]{\a[#1]\a[#1]}\a end",
        r"\let\a\b\let\b\a \a end",
        r"\newenvironment{x}{\begin{x}}{\end{x}}\begin{x}y\end{x} end",
        "".join(rf"\def\{c}{{\{d}\{d}\{d}}}" for c, d in zip("abcdefghijklmnop", "bcdefghijklmnopq")) + r"\a end",
        r"\input{main} \input{main} end",
        "\\newcommand{\\a}[1]{x}" + "\\a{" * 5000 + "end",
        "\\begin{" * 3000 + "end",
        "$ {$" * 3000 + "end",
    ],
)
def test_loops_end_and_what_follows_is_not_lost(source):
    result = latex.project({"main.tex": source.encode()}, Report())
    assert len(result.text) < 2_000_000
    assert result.report
    if source.startswith((r"\input", r"\newcommand{\a}[1]{x}")):
        assert "end" in result.text


def test_an_include_loop_through_files_is_counted():
    files = {"main.tex": b"a \\input{x} d", "x.tex": b"b \\input{y}", "y.tex": b"c \\input{x} \\input{main}"}
    result = latex.project(files, Report())
    assert result.text == "a b c d"
    assert result.report["include_loops"] == 2


FIGURE = "\\begin{figure}[t]\\centering\\includegraphics{a}\\caption{A mill.}\\label{f}\\end{figure}"
TABLE = "\\begin{table}\\caption{Sizes.}\\begin{tabular}{l}3\\\\4\\end{tabular}\\end{table}"


@pytest.mark.parametrize(
    "floating, shown",
    [
        (FIGURE, "Figure 1: A mill."),
        (TABLE, "Table 1: Sizes.\n\n3\n4"),
        ("\\begin{algorithm}\\caption{Grind}\\begin{algorithmic}\\State x\\end{algorithmic}\\end{algorithm}", "Algorithm 1: Grind\n\nx"),
        ("\\begin{wrapfigure}{r}{3cm}\\caption{A mill.}\\end{wrapfigure}", "Figure 1: A mill."),
        ("\\begin{sidewaysfigure*}\\caption{A mill.}\\end{sidewaysfigure*}", "Figure 1: A mill."),
        ("\\begin{marginfigure}\\caption{A mill.}\\end{marginfigure}", "Figure 1: A mill."),
        ("\\begin{chart}[h]\\caption{Wind.}\\end{chart}", "Chart 1: Wind."),
        ("\\begin{plan2}[h]\\caption{Floor.}\\end{plan2}", "Plan2 1: Floor."),
        ("\\begin{lstlisting}[float,caption={Grind it},language=C]\nx;\n\\end{lstlisting}", "Listing 1: Grind it\n\n```c\nx;\n```"),
        ("\\marginpar[l]{By the river.}", "By the river."),
        ("\\marginnote{By the river.}", "By the river."),
        ("\\begin{comment}\nno\n\\end{comment}", ""),
        ("% no\n% no", ""),
        ("\\iffalse no \\fi", ""),
        ("\\begin{tikzpicture}\\draw (0,0);\\end{tikzpicture}", ""),
        ("\\begin{center}\\includegraphics{a}\\end{center}", ""),
        (
            "\\begin{figure}\\begin{subfigure}{3cm}\\caption{in}\\end{subfigure}\\caption{out}\\end{figure}",
            "Figure 1: in\n\nFigure 2: out",
        ),
        (
            "\\begin{figure}\\begin{figure}\\caption{in}\\end{figure}\\begin{table}\\caption{low}\\end{table}\\caption{out}\\end{figure}",
            "Figure 1: in\n\nTable 1: low\n\nFigure 2: out",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "before, after", [("The wheel", "turns all day."), ("The wheel,", "an old one, turns."), ("水車は", "川の流れで回る。")]
)
def test_a_float_never_parts_a_sentence(floating, shown, before, after):
    """It follows the paragraph, whether it stands on lines of its own or inside one."""
    space = " " if before.isascii() else ""
    for gap in ("\n",) if floating.startswith("%") else ("\n", " ") if space else ("\n",):
        source = f"\\documentclass{{a}}\\newfloat{{plan2}}{{t}}{{p}}\\begin{{document}}{before}{gap}{floating}{gap}{after}\n\nNext."
        got = text(f"{source}\\end{{document}}").split("\n\n", 1)
        assert got[0] == f"{before}{space}{after}"
        assert got[1] == f"{shown}\n\nNext." if shown else "Next."


def test_floats_at_the_border_of_a_paragraph_stay_there():
    parts = [FIGURE, "One.", TABLE, "Two.\n" + FIGURE, "\\section{S}", FIGURE + "\nThree."]
    assert text("\n\n".join(parts)).split("\n\n") == [
        "Figure 1: A mill.",
        "One.",
        "Table 1: Sizes.",
        "3\n4",
        "Two.",
        "Figure 2: A mill.",
        "## S",
        "Figure 3: A mill.",
        "Three.",
    ]


def test_floats_around_an_equation_in_lists_quotes_and_notes():
    source = f"The speed is\n{FIGURE}\n\\[v = 1\\]\nwhere\n{TABLE}\n$v$ is slow.\n\nNext."
    assert text(source) == "The speed is\n\n$$v = 1$$\n\nwhere $v$ is slow.\n\nFigure 1: A mill.\n\nTable 1: Sizes.\n\n3\n4\n\nNext."
    source = f"\\begin{{itemize}}\\item One\n{FIGURE}\nmill.\n{FIGURE}\n\\item Two.\\end{{itemize}} End."
    assert text(source) == "- One mill.\n\n  Figure 1: A mill.\n\n  Figure 2: A mill.\n- Two.\n\nEnd."
    assert text(f"\\begin{{quote}}a {FIGURE} b\\end{{quote}}") == "> a b\n>\n> Figure 1: A mill."
    assert text(f"a\\footnote{{b {FIGURE} c}} d") == "a (b c) d\n\nFigure 1: A mill."
    assert text(f"Text\n{FIGURE}\n\\begin{{theorem}}T\\end{{theorem}}") == "Text\n\nFigure 1: A mill.\n\n**Theorem 1**. T"


def test_many_floats_in_one_paragraph_take_linear_time():
    n = 3000
    got = text("a\n" + f"{FIGURE}\nb\n" * n)
    assert got.startswith("a" + " b" * n + "\n\nFigure 1:") and got.endswith(f"Figure {n}: A mill.")


@pytest.mark.parametrize(
    "source, shown",
    [
        ("\\SI{5.97e24}{\\kilogram}", "5.97 × 10²⁴ kg"),
        ("\\num{1.602e-19}", "1.602 × 10⁻¹⁹"),
        ("\\qtyrange{5}{10}{\\kilo\\metre\\per\\second}", "5–10 km/s"),
        ("\\numlist{1;2;3}", "1, 2, 3"),
        ("\\SI{4.2+-0.1}{\\volt}", "4.2 ± 0.1 V"),
    ],
)
def test_quantities(source, shown):
    assert text(source) == shown
