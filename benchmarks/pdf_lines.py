"""Line breaks of a PDF judged by the HTML edition of the same text: where a space, nothing or a new line is right.

python benchmarks/pdf_lines.py --pdf install.ko.pdf --html 'ko/*.html' [--package FOLDER-WITH-kanana_jax] [--show 5]

A break is judged where the characters on both sides of it (nine, without white space) stand together in the HTML
edition, with the same between them wherever they do. Debian's installation guide and
its developers' manuals come in both forms.
"""

import argparse
import collections
import glob
import html
import json
import pathlib
import re
import sys
import time

NEAR = 9
_BLOCK = re.compile(
    r"<(?:/?(?:p|div|li|ul|ol|h\d|td|th|tr|table|dt|dd|dl|pre|br|hr|body|section|blockquote|title)\b)[^<>]*>", re.I
)


def reference(pattern: str) -> str:
    """The text of HTML files, each block on a line."""
    texts = []
    for name in sorted(glob.glob(pattern)):
        source = pathlib.Path(name).read_text(encoding="utf-8", errors="replace")
        source = re.sub(r"(?is)<(script|style|head)\b.*?</\1>", "", source)
        source = re.sub(r"(?is)<pre\b[^>]*>(.*?)</pre>", lambda m: f"\0{m[1]}\0".replace("\n", "\0"), source)
        text = html.unescape(re.sub(r"<[^<>]+>", "", _BLOCK.sub("\0", source)))
        texts.append(re.sub(r"\s+", " ", re.sub(r"\s*\0[\s\0]*", "\0", text)).replace("\0", "\n"))
    return "\n".join(texts)


def squeeze(text: str) -> tuple[str, list[str]]:
    """The characters without white space, and what stood before each."""
    characters, gaps, gap = [], [], ""
    for c in text:
        if c == "\n" or (c.isspace() and not gap):
            gap = "\n" if c == "\n" else " "
        elif not c.isspace() and c != "\u00ad":
            characters.append(c)
            gaps.append(gap)
            gap = ""
    return "".join(characters), gaps


def between(text: tuple[str, list[str]], before: str, after: str) -> str | None:
    """What stands between two pieces; None where they are not together, or not always alike."""
    found = {text[1][m.start() + len(before)] for m in re.finditer(re.escape(before + after), text[0])}
    return found.pop() if len(found) == 1 else None


def breaks(data: bytes) -> list[tuple[str, str]]:
    import pypdfium2

    document = pypdfium2.PdfDocument(data)
    found = []
    for number in range(len(document)):
        text = document[number].get_textpage().get_text_range().replace("\ufffe", "\1\r\n")
        lines = [line.strip() for line in text.split("\r\n") if line.strip()]
        found += list(zip(lines, lines[1:]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdf", required=True)
    parser.add_argument("--html", required=True, help="glob of the same text's HTML files")
    parser.add_argument("--package", help="folder of the kanana_jax to measure, this one by default")
    parser.add_argument("--show", type=int, default=0, help="examples of each mistake")
    options = parser.parse_args()
    sys.path.insert(0, options.package or str(pathlib.Path(__file__).resolve().parent.parent))
    from kanana_jax.data.extract import extract

    data = pathlib.Path(options.pdf).read_bytes()
    began = time.process_time()
    text = extract(data, "pdf").text
    seconds = time.process_time() - began
    wanted, got = squeeze(reference(options.html)), squeeze(text)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    examples: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for first, second in breaks(data):
        parted = first.endswith("\1")
        before = re.sub(r"\s", "", first).strip("\1-" if parted else "\1")[-NEAR:]
        after = re.sub(r"\s", "", second)[:NEAR]
        right = between(wanted, before, after) if len(before) > 4 and len(after) > 3 else None
        ours = between(got, before, after) if right is not None else None
        if right is not None and ours is not None:
            counts[right, ours] += 1
            if right != ours:
                examples[right, ours].append(f"{first[-30:]} | {second[:20]}")
    total = sum(counts.values())
    cjk = r"[\u3040-\u30ff\u4e00-\u9fff]"
    result = {
        "breaks": total,
        "right": round(sum(n for (a, b), n in counts.items() if a == b) / max(total, 1), 4),
        "by_kind": {f"{a!r} -> {b!r}": n for (a, b), n in sorted(counts.items())},
        "lines_between_kana_or_kanji": len(re.findall(f"{cjk}\n{cjk}", text)),
        "lines_between_hangul": len(re.findall("[\uac00-\ud7a3]\n[\uac00-\ud7a3]", text)),
        "seconds": round(seconds, 2),
    }
    print(json.dumps(result, ensure_ascii=False, indent=1))
    for kind, found in examples.items():
        for example in found[: options.show]:
            print(kind, example)


if __name__ == "__main__":
    main()
