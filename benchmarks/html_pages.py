"""Pages of real documentation: what of their content comes back, what of their navigation stays, beside two peers.

    python benchmarks/html_pages.py --data FOLDER --peer PYTHON [--before CHECKOUT] [--per-group 12] [--show DIR]

FOLDER holds .html pages, in any depth: what packages of documentation install (Debian's, for one). PYTHON is an
interpreter with trafilatura, resiliparse and lxml, which run with their defaults. CHECKOUT is another commit of this
project. The pages are drawn evenly by generator, language and second-level folder, by the hash of their paths.

The reference is made with lxml, apart from our own parser, from what each generator calls its content (GENERATORS):
text inside is content, all other text of the body boilerplate, and tables of contents count as neither.

  sections     share of headings that come back as a line of their own with 80% of the section's own text
  content      share of the content's sequences of eight letters that come back
  boilerplate  share of the letters of boilerplate text (without what the content says too) that stays
  named        sections whose id has a word that is often a class of navigation: how many of how many
  speed        pages of one second, relative to ours; the tools take turns, and each has the best of its rounds
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator

SEQUENCE = 8
ROUNDS = 2
# Generator: what tells it, its content, what inside is no content, what is neither.
GENERATORS = {
    "Sphinx": (
        "//div[@class='sphinxsidebar' or contains(@class, 'wy-nav-content') or @id='docs-body'] | //div[@class='body']",
        "//div[@role='main'] | //div[@class='body'][not(ancestor::div[@role='main'])][not(.//div[@role='main'])]"
        " | //div[@id='yui-main']//div[@class='yui-b']",
        "//a[@class='headerlink'] | //*[contains(@class, 'viewcode-link')]",
        "//*[contains(@class, 'toctree-wrapper') or contains(concat(' ', @class), ' contents')]",
    ),
    "DocBook": (
        "//div[@class='navheader' or @class='navfooter'] | //ul[contains(@class, 'docnav')]"
        " | //table[@class='navigation']",
        "/html/body",
        "//div[@class='navheader' or @class='navfooter' or @class='footer' or @id='banner'] | //p[@id='title']"
        " | //ul[contains(@class, 'docnav')] | //table[@class='navigation']",
        "//div[contains(@class, 'toc')]",
    ),
    "Doxygen": (
        "//div[@id='doc-content']",
        "//div[@class='contents'] | //div[@class='header']",
        "",
        "//div[@class='summary' or @class='toc']",
    ),
    "RDoc": ("//footer[@id='validator-badges']", "//main", "//span[@class='method-click-advice']", ""),
    "AsciiDoc": ("//div[@id='footer-text']", "//div[@id='header']/h1 | //div[@id='content']", "", "//div[@id='toc']"),
    "Texinfo": (
        "//h1[@class='settitle']",
        "/html/body",
        "//div[@class='header' or @class='nav-panel']",
        "//*[contains(@class, 'Contents_element') or @class='contents' or @class='menu' or @class='section-toc']"
        " | //table[contains(@class, 'index-')]",
    ),
    "mdBook": ("//nav[@id='sidebar']", "//div[@id='content']//main", "", ""),
    "rustdoc": (
        "//section[@id='main-content' or @id='main']",
        "//section[@id='main-content' or @id='main']",
        "//a[contains(@class, 'srclink') or @class='src' or @id='toggle-all-docs'] | //span[@class='out-of-band']",
        "",
    ),
}  # fmt: skip
UNSEEN = {"script", "style", "noscript", "template", "head", "button", "select", "option", "svg", "nav"}
NAMES = re.compile(
    r"(?<![a-z])(nav|navigation|menu|breadcrumbs?|sidebar|footer|cookies?|banner|ads?|share|sharing|social|related|recommended|comments"
    r"|newsletter|subscribe|popup|modal|pager|pagination|toolbar|toc|login|signup|copyright|references)(?![a-z])",
    re.IGNORECASE,
)


def letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", text))


def sequences(text: str) -> Iterator[str]:
    return (text[i : i + SEQUENCE] for i in range(max(1, len(text) - SEQUENCE + 1)))


def reference(data: bytes) -> dict | None:
    """A page's generator, language, sections and boilerplate; None for pages of no known generator or little text."""
    import lxml.html

    document = lxml.html.document_fromstring(data)
    generator = next(
        (name for name, (sign, inside, *_) in GENERATORS.items() if document.xpath(sign) and document.xpath(inside)),
        None,
    )
    if generator is None:
        return None
    _, inside, outside, neither = GENERATORS[generator]
    roots = document.xpath(inside)
    # The lists hold the nodes: lxml makes a new object, of another id, for a node that nothing holds.
    without, unjudged = (document.xpath(path) if path else [] for path in (outside, neither))
    marks = {id(node): "content" for node in roots}
    marks |= {id(node): "boilerplate" for node in without} | {id(node): "neither" for node in unjudged}
    sections: list[dict] = [{"heading": "", "id": "", "text": ""}]
    boilerplate, unjudged_text = [], []
    body = document.find("body")
    stack: list = [(body if body is not None else document, "boilerplate", False, True)]
    while stack:
        node, side, heading, entering = stack.pop()
        if not entering:
            text = node
        elif not isinstance(node.tag, str):
            continue
        elif node.tag in UNSEEN:
            if node.tag == "nav":
                boilerplate.append(letters(" ".join(node.itertext())))
            continue
        else:
            side = "neither" if side == "neither" else marks.get(id(node), side)
            if re.fullmatch("h[1-6]", node.tag) and side == "content":
                names = [node.get("id"), node.getparent().get("id"), *node.xpath(".//a/@id | .//a/@name")]
                sections.append({"heading": "", "id": next(filter(None, names), ""), "text": ""})
                heading = True
            for child in reversed(node):
                stack.append((child.tail or "", side, heading, False))
                stack.append((child, side, heading, True))
            text = node.text or ""
        if side == "content":
            sections[-1]["heading" if heading else "text"] += letters(text)
        elif side == "neither":
            unjudged_text.append(letters(text))
        elif side == "boilerplate" and len(letters(text)) > 1:
            boilerplate.append(letters(text))
    everything = "".join(section["heading"] + section["text"] for section in sections)
    if len(everything) < 300:
        return None
    sections = [s for s in sections if s["heading"] or s["text"]]
    said = everything + "".join(unjudged_text)
    boilerplate = [text for text in boilerplate if text and text not in said]
    language = "ko" if len(re.findall("[가-힣]", everything)) > 0.1 * len(everything) else "en"
    language = "ja" if len(re.findall("[ぁ-ヶ]", everything)) > 0.1 * len(everything) else language
    return {"generator": generator, "language": language, "sections": sections, "boilerplate": boilerplate}


def tool(name: str) -> Callable[[bytes], object]:
    if name == "reference":
        return reference
    if name == "trafilatura":
        import trafilatura

        return lambda data: trafilatura.extract(data) or ""
    if name == "resiliparse":
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding

        return lambda data: extract_plain_text(bytes_to_str(data, detect_encoding(data)), main_content=True)
    from kanana_jax.data.extract import extract

    return lambda data: extract(data, "html").text


def work(name: str, listing: pathlib.Path, out: pathlib.Path) -> None:
    run = tool(name)
    with out.open("w", encoding="utf-8") as lines:
        for path in json.loads(listing.read_text(encoding="utf-8")):
            data = pathlib.Path(path).read_bytes()
            start = time.perf_counter()
            try:
                result = run(data)
            except Exception as error:  # another library's failure is its result
                result = "" if name != "reference" else None
                print(f"{name}: {path}: {error}", file=sys.stderr)
            lines.write(json.dumps({"path": path, "result": result, "seconds": time.perf_counter() - start}) + "\n")


def score(wanted: dict, text: str) -> dict[str, float]:
    """Sums over a page, so that pages of all lengths add up."""
    lines = {letters(line) for line in text.split("\n")}
    found = letters(text)
    got = collections.Counter(sequences(found))
    sums: collections.Counter[str] = collections.Counter()
    content: collections.Counter[str] = collections.Counter()
    for section in wanted["sections"]:
        own = collections.Counter(sequences(section["text"])) if len(section["text"]) >= SEQUENCE else {}
        content.update(own)
        if section["heading"]:
            kept = not own or sum(n for run, n in own.items() if run in got) >= 0.8 * sum(own.values())
            kept = kept and section["heading"] in lines
            sums["sections"] += 1
            sums["sections_kept"] += kept
            if NAMES.search(section["id"]):
                sums["named"] += 1
                sums["named_kept"] += kept
    sums["content"] = sum(content.values())
    sums["content_kept"] = (content & got).total()
    sums["boilerplate"] = sum(map(len, wanted["boilerplate"]))
    sums["boilerplate_kept"] = sum(len(piece) for piece in wanted["boilerplate"] if piece in found)
    sums["pages"] = 1
    return sums


def run(arm: str, python: str, root: pathlib.Path, listing: pathlib.Path, folder: pathlib.Path) -> list[dict]:
    out = folder / f"{arm}.jsonl"
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    command = [python, __file__, "--worker", arm, str(listing), str(out)]
    subprocess.run(command, check=True, env=environment)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def sample(folder: pathlib.Path, references: dict[str, dict], most: int) -> list[str]:
    groups: dict[tuple, list[str]] = {}
    for path, wanted in references.items():
        top = pathlib.Path(path).relative_to(folder).parts[0]
        groups.setdefault((wanted["generator"], wanted["language"], top), []).append(path)
    key = {path: hashlib.sha256(path[len(str(folder)) :].encode()).hexdigest() for path in references}
    return sorted(path for paths in groups.values() for path in sorted(paths, key=key.__getitem__)[:most])


def tables(references: dict[str, dict], results: dict[str, list[dict]]) -> dict[str, dict[str, dict]]:
    sums: dict[str, dict[str, collections.Counter]] = {}
    for arm, rows in results.items():
        for row in rows:
            wanted = references[row["path"]]
            one = score(wanted, row["result"])
            for group in ("all", wanted["language"], f"{wanted['generator']} {wanted['language']}"):
                sums.setdefault(group, {}).setdefault(arm, collections.Counter()).update(one)
    return {
        group: {
            arm: {
                "pages": total["pages"],
                **{
                    key: f"{100 * total[f'{key}_kept'] / max(1, total[key]):.1f}"
                    for key in ("sections", "content", "boilerplate")
                },
                "named": f"{total['named_kept']}/{total['named']}",
            }
            for arm, total in arms.items()
        }
        for group, arms in sorted(sums.items())
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder of .html pages")
    parser.add_argument("--peer", help="interpreter with trafilatura, resiliparse and lxml")
    parser.add_argument("--before", type=pathlib.Path, help="checkout of another commit of this project")
    parser.add_argument("--per-group", type=int, default=12, help="pages of one generator, language and folder")
    parser.add_argument("--show", type=pathlib.Path, help="folder for each arm's texts")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker[0], *map(pathlib.Path, options.worker[1:]))
        return
    if not options.data or not options.peer:
        parser.error("--data and --peer are needed")
    here = pathlib.Path(__file__).resolve().parent.parent
    arms = {"ours": (sys.executable, here)}
    if options.before:
        arms["before"] = (sys.executable, options.before.resolve())
    arms |= dict.fromkeys(("trafilatura", "resiliparse"), (options.peer, here))
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        listing = folder / "pages.json"
        data = options.data.resolve()
        pages = sorted(str(path) for path in data.rglob("*.html") if path.is_file())
        listing.write_text(json.dumps(pages), encoding="utf-8")
        rows = run("reference", options.peer, here, listing, folder)
        references = {row["path"]: row["result"] for row in rows if row["result"]}
        paths = sample(data, references, options.per_group)
        listing.write_text(json.dumps(paths), encoding="utf-8")
        results: dict[str, list[dict]] = {}
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(ROUNDS):
            for arm, (python, root) in arms.items():
                results[arm] = run(arm, python, root, listing, folder)
                seconds[arm].append(sum(row["seconds"] for row in results[arm]))
    if options.show:
        for arm, rows in results.items():
            for i, row in enumerate(rows):
                target = options.show / f"{i:03d}.{arm}.txt"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(f"{row['path']}\n\n{row['result']}", encoding="utf-8")
    speed = {arm: round(min(seconds["ours"]) / min(times), 2) for arm, times in seconds.items()}
    print(json.dumps({"speed": speed, **tables(references, results)}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
