"""Files, lines of code and classes of groups of Python files: how much has to be read to know a part of a program.

    python benchmarks/code_lines.py ours=kanana_jax/models,kanana_jax/interop/families peer=DIR/layers,DIR/model.py

A line of code is one with something on it beside a comment or a docstring.
"""

import argparse
import ast
import io
import pathlib
import tokenize

_NOTHING = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
    tokenize.ENCODING,
}  # fmt: skip


def code_lines(text: str) -> int:
    """Lines of a Python file with code on them."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {n for t in tokens if t.type not in _NOTHING for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def counted(paths: list[pathlib.Path]) -> dict[str, int]:
    """Files, lines of code, classes and functions of files and folders."""
    files = sorted({file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])})
    texts = [file.read_text(encoding="utf-8") for file in files]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    return {
        "files": len(files),
        "lines": sum(map(code_lines, texts)),
        "longest": max(map(code_lines, texts), default=0),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "groups", nargs="+", metavar="NAME=PATH,PATH…", help="files and folders that are counted together"
    )
    for group in parser.parse_args().groups:
        name, paths = group.split("=", 1)
        found = counted([pathlib.Path(path) for path in paths.split(",")])
        print(f"{name}: " + ", ".join(f"{value:,} {key}" for key, value in found.items()))


if __name__ == "__main__":
    main()
