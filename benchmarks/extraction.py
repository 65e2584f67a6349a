"""Extraction: how much of a reference text comes back, and in which order, against other libraries.

python benchmarks/extraction.py                                  (the fixtures of the tests)
python benchmarks/extraction.py --raw RAW.jsonl.gz --reference TEXT.jsonl.gz --format markdown
python benchmarks/extraction.py --rendered 'docs/**/*.rst' --format rst      (or RAW.jsonl.gz, for Markdown too)

RAW has lines {"id", "raw"}; TEXT has {"id", "text"}, or {"meta": {"file"}, "text"} for parts of the raw
document whose id ends in that file name. Peers run with their defaults.

--rendered holds the words that a reader of our text sees (as markdown-it-py renders it, CommonMark with tables)
against those of the page as docutils or markdown-it-py renders it.

recall, precision: of the words, as multisets. order: the longest increasing run of positions of the
five-word sequences that both texts have once, as a share of them. formulas, headings: share of those
of the reference that come back as they are. Commands of TeX are no words on either side.
"""

import argparse
import bisect
import collections
import glob
import gzip
import json
import pathlib
import re
import time
import unicodedata
from collections.abc import Callable, Iterator

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "extract" / "fixtures"
SEQUENCE = 5


def words(text: str) -> list[str]:
    text = re.sub(
        r"\\(?:label|ref|cite|begin|end|eqref)\{[^{}]*\}|\\[A-Za-z]+", " ", unicodedata.normalize("NFC", text)
    )
    return re.findall(r"[^\W_]+", text)


def formulas(text: str) -> list[str]:
    found = re.findall(r"\$\$?([^$]+)\$\$?", text)
    return ["".join(re.sub(r"\\label\{[^{}]*\}", "", formula).split()) for formula in found]


def share(wanted: list, got: list) -> float:
    wanted, got = collections.Counter(wanted), collections.Counter(got)
    return sum((wanted & got).values()) / max(1, sum(wanted.values()))


def order(reference: list[str], got: list[str]) -> float:
    def places(text: list[str]) -> dict[tuple[str, ...], int]:
        runs = [tuple(text[i : i + SEQUENCE]) for i in range(len(text) - SEQUENCE + 1)]
        counts = collections.Counter(runs)
        return {run: i for i, run in enumerate(runs) if counts[run] == 1}

    wanted, found = places(reference), places(got)
    common = sorted(wanted.keys() & found.keys(), key=wanted.__getitem__)
    ends: list[int] = []
    for place in (found[run] for run in common):
        i = bisect.bisect_left(ends, place)
        ends[i : i + 1] = [place]
    return len(ends) / max(1, len(common))


def scores(reference: str, text: str) -> dict[str, float]:
    wanted, got = words(reference), words(text)
    heads = re.findall(r"^#+ .*$", reference, re.MULTILINE)
    result = {"recall": share(wanted, got), "precision": share(got, wanted), "order": order(wanted, got)}
    if tex := formulas(reference):
        result["formulas"] = share(tex, formulas(text))
    if heads:
        result["headings"] = share(heads, re.findall(r"^#+ .*$", text, re.MULTILINE))
    return result


def peers(format: str) -> dict[str, Callable[[bytes], str]]:
    """Ours, and what is installed of the others."""
    from kanana_jax.data.extract import extract

    tools: dict[str, Callable[[bytes], str]] = {"kanana_jax": lambda data: extract(data, format).text}
    if format == "html":
        import trafilatura
        from resiliparse.extract.html2text import extract_plain_text

        tools["trafilatura"] = lambda data: trafilatura.extract(data.decode("utf-8", "replace")) or ""
        tools["resiliparse"] = lambda data: extract_plain_text(data.decode("utf-8", "replace"), main_content=True)
    elif format == "wikitext":
        import mwparserfromhell

        tools["mwparserfromhell"] = lambda data: mwparserfromhell.parse(data.decode("utf-8", "replace")).strip_code()
    elif format == "latex":
        from pylatexenc.latex2text import LatexNodes2Text

        tools["pylatexenc"] = lambda data: LatexNodes2Text().latex_to_text(data.decode("utf-8", "replace"))
    else:
        tools["as it is"] = lambda data: data.decode("utf-8", "replace")
    return tools


def pairs(raw: str, reference: str, limit: int) -> list[tuple[bytes, str]]:
    texts: dict[str, list[str]] = {}
    for row in _rows(reference):
        for key in {row.get("id"), row.get("meta", {}).get("file")} - {None}:
            texts.setdefault(key, []).append(row["text"])
    found = []
    for row in _rows(raw):
        parts = texts.get(row["id"]) or texts.get(row["id"].rsplit("/", 1)[-1])
        if parts:
            found.append((row["raw"].encode(), "\n\n".join(parts)))
    return found[:limit]


def _rows(path: str) -> Iterator[dict]:
    with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def measure(
    tools: dict[str, Callable[[bytes], str]], documents: list[tuple[bytes, str]]
) -> dict[str, dict[str, float]]:
    table = {}
    for name, tool in tools.items():
        sums: dict[str, list[float]] = {}
        seconds, failed = 0.0, 0
        for data, reference in documents:
            start = time.perf_counter()
            try:
                text = tool(data)
            except Exception:  # another library's failure is its result
                text, failed = "", failed + 1
            seconds += time.perf_counter() - start
            for key, value in scores(reference, text).items():
                sums.setdefault(key, []).append(value)
        table[name] = {key: round(sum(values) / len(values), 4) for key, values in sums.items()}
        table[name]["MB_per_s"] = round(sum(len(data) for data, _ in documents) / 1e6 / max(seconds, 1e-9), 2)
        if failed:
            table[name]["failed"] = failed
    return table


def fixtures() -> dict[str, dict[str, dict[str, float]]]:
    """The pages of the tests; the LaTeX project is given to the peer as its main file, which is all it takes."""
    from kanana_jax.data.extract import latex
    from kanana_jax.data.extract.markup import Report

    result = {}
    for name, format in (("coriolis.wiki", "wikitext"), ("page.html", "html")):
        document = ((FIXTURES / name).read_bytes(), (FIXTURES / f"{name}.md").read_text(encoding="utf-8"))
        result[name] = measure(peers(format), [document])
    folder = FIXTURES / "paper"
    files = {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
    tools = peers("latex") | {"kanana_jax": lambda data: latex.project(files, Report()).text}
    document = (files["main.tex"], (FIXTURES / "paper.md").read_text(encoding="utf-8"))
    result["paper"] = measure(tools, [document])
    return result


def shown(markdown: str) -> str:
    """The text of a page that markdown-it-py makes: without tags, addresses, scripts and comments."""
    import lxml.html
    from markdown_it import MarkdownIt

    page = MarkdownIt("commonmark").enable("table").render(markdown)
    root = lxml.html.document_fromstring(f"<html><body>{page}</body></html>")
    return " ".join(root.xpath("//text()[not(ancestor::script or ancestor::style or parent::comment)]"))


def rendered(data: bytes, format: str) -> str:
    """The visible text of a page of reStructuredText or Markdown by a parser that is not ours."""
    text = data.decode("utf-8")
    if format == "markdown":
        return shown(re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL))
    from docutils import core, nodes

    settings = {"report_level": 5, "halt_level": 6, "file_insertion_enabled": False, "raw_enabled": False}
    tree = core.publish_doctree(text, settings_overrides=settings)
    for node in list(tree.findall(lambda n: isinstance(n, (nodes.comment, nodes.system_message)))):
        node.parent.remove(node)
    return tree.astext()


def visible(pattern: str, format: str, limit: int) -> dict[str, object]:
    """Shares over all words of all pages: of the rendered words that ours has, of ours that the page has."""
    from kanana_jax.data.extract import extract

    if pattern.endswith((".jsonl", ".jsonl.gz")):
        pages = [row["raw"].encode() for row in _rows(pattern)][:limit]
    else:
        pages = [pathlib.Path(name).read_bytes() for name in sorted(glob.glob(pattern, recursive=True))[:limit]]
    wanted, ours, both = 0, 0, 0
    missing: collections.Counter[str] = collections.Counter()
    added: collections.Counter[str] = collections.Counter()
    for page in pages:
        want = collections.Counter(words(rendered(page, format)))
        got = collections.Counter(words(shown(extract(page, format).text)))
        wanted, ours, both = wanted + want.total(), ours + got.total(), both + (want & got).total()
        missing, added = missing + (want - got), added + (got - want)
    kept, foreign = both / max(1, wanted), 1 - both / max(1, ours)
    result = {"documents": len(pages), "words": wanted, "kept": round(kept, 4), "foreign": round(foreign, 4)}
    return result | {"missing": missing.most_common(20), "added": added.most_common(20)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", help="raw documents, .jsonl or .jsonl.gz")
    parser.add_argument("--reference", help="their texts, .jsonl or .jsonl.gz")
    parser.add_argument("--format", help="format of the raw documents")
    parser.add_argument("--limit", type=int, default=1000, help="documents at most")
    parser.add_argument("--rendered", help="a pattern of files, or raw documents, to hold against a renderer")
    options = parser.parse_args()
    if options.rendered:
        if options.format not in ("markdown", "rst"):
            parser.error("--rendered goes with --format markdown or rst")
        print(json.dumps(visible(options.rendered, options.format, options.limit), ensure_ascii=False))
        return
    given = [options.raw, options.reference, options.format]
    if any(given) and not all(given):
        parser.error("--raw, --reference and --format go together")
    if not any(given):
        print(json.dumps(fixtures(), indent=1))
        return
    documents = pairs(options.raw, options.reference, options.limit)
    if not documents:
        parser.error("no raw document has a reference: the ids must agree")
    print(json.dumps({"documents": len(documents), **measure(peers(options.format), documents)}, indent=1))


if __name__ == "__main__":
    main()
