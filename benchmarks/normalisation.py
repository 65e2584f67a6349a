"""Whether the Unicode form of a text matters anywhere: composed (NFC) against decomposed (NFD).

    python benchmarks/normalisation.py --input ko='web/*.ko.jsonl.gz' ja='web/*.ja.jsonl.gz'

Prints, by language, documents compared, how many of them read differently in the two forms, and how many differ in
their signals, rules, cut spans, text as it is kept (lines cut, personal data replaced), or MinHash keys. The shipped
filter of the language runs, without its rules and with C4's line cuts, so that every document goes all the way.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import sys
import unicodedata

from filters import settings

CHUNK = 128


def compare(lang: str, paths: list[str]) -> dict:
    from kanana_jax.data.dedup import minhash
    from kanana_jax.data.filters import Filter
    from kanana_jax.data.filters.c4 import C4Config
    from kanana_jax.data.filters.rules import broken_rules
    from kanana_jax.data.read import records

    config = settings(lang)
    judge = Filter(dataclasses.replace(config, rules={}, c4=config.c4 or C4Config(), cut_lines=True)).judge
    minhashes = minhash.MinHashConfig()
    shingles = minhashes.shingles.get(lang, minhashes.shingles["default"])

    def outputs(texts: list[str]) -> list[dict]:
        verdicts = judge([{"id": "", "text": text, "source": ""} for text in texts])
        return [
            {
                "signals": (verdict.signals, verdict.scores),
                "rules": broken_rules(config.rules, verdict.signals, verdict.scores, {}),
                "spans": verdict.spans,
                "kept_text": (verdict.record["text"], verdict.pii),
                "minhash": (minhash.text_key(text), minhash.band_keys(hashes, minhashes).tobytes()),
            }
            for text, verdict, hashes in zip(texts, verdicts, minhash.shingle_hashes(texts, shingles))
        ]

    counts = collections.Counter(documents=0, forms_differ=0, personal_data=0)
    differences: collections.Counter = collections.Counter()
    texts = [item["text"] for path in paths for item in records.read(path, source="") if isinstance(item, dict)]
    for start in range(0, len(texts), CHUNK):
        composed, decomposed = (
            [unicodedata.normalize(form, text) for text in texts[start : start + CHUNK]] for form in ("NFC", "NFD")
        )
        counts["documents"] += len(composed)
        counts["forms_differ"] += sum(a != b for a, b in zip(composed, decomposed))
        for one, other in zip(outputs(composed), outputs(decomposed)):
            counts["personal_data"] += sum(one["kept_text"][1].values())
            differences.update(name for name in one if one[name] != other[name])
    return {"lang": lang, **counts, "differences": dict(differences)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", required=True, metavar="LANG=PATH")
    inputs: dict[str, list[str]] = {}
    for item in parser.parse_args().input:
        lang, _, path = item.partition("=")
        inputs.setdefault(lang, []).append(path)
    for lang, paths in inputs.items():
        print(json.dumps(compare(lang, paths)), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
