"""All filter signals against datatrove's, one process each, in one run; their decisions compared; scaling.

    python benchmarks/filters.py --peer PYTHON --input ko=web.jsonl.gz en=a.jsonl.gz ja=b.jsonl.gz [--mb 2]

PYTHON is an interpreter with datatrove[processing,multilingual]==0.10.1, kiwipiepy < 0.22, spacy, sudachipy and
sudachidict-core. Its cascade (Gopher repetition and quality, FineWeb, and C4 for English) runs with thresholds that
nothing breaks, so that every statistic is computed for every document. A language may be named several times. MB are
UTF-8, seconds are the process's own. What datatrove's cascade has not is measured alone, where asked for: `--pii`,
`--language`, `--quality` (fastText as shipped, that learns to tell the texts from such with their words shuffled, and
reads all of a document).

`--parity N`: datatrove's shipped filters judge N English documents, and so do ours on the words that it found.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

CODES = {"en": "eng_Latn", "ko": "kor_Hang", "ja": "jpn_Jpan"}
RULES = {
    "repetition": {
        "dup_para_frac": "duplicate_paragraphs",
        "dup_para_char_frac": "duplicate_paragraph_characters",
        "dup_line_frac": "duplicate_lines",
        "dup_line_char_frac": "duplicate_line_characters",
        **{f"top_{n}_gram": f"top_{n}_gram" for n in (2, 3, 4)},
        **{f"duplicated_{n}_n_grams": f"duplicate_{n}_gram" for n in range(5, 11)},
    },
    "quality": {
        "gopher_short_doc": "words",
        "gopher_long_doc": "words",
        "gopher_below_avg_threshold": "mean_word_length",
        "gopher_above_avg_threshold": "mean_word_length",
        "gopher_too_many_hashes": "hashes_per_word",
        "gopher_too_many_ellipsis": "ellipses_per_word",
        "gopher_too_many_bullets": "bullet_lines",
        "gopher_too_many_end_ellipsis": "ellipsis_lines",
        "gopher_below_alpha_threshold": "alphabetic_words",
        "gopher_enough_stop_words": "stop_words",
    },
    "c4": {
        "lorem_ipsum": "c4_lorem_ipsum",
        "curly_bracket": "c4_curly_bracket",
        "too_few_sentences": "c4_sentences",
    },
    "fineweb": {
        "line_punct_ratio": "line_punctuation",
        "short_line_ratio": "short_lines",
        "char_dup_ratio": "fineweb_duplicate_line_characters",
        "list_ratio": "newlines_per_word",
    },
}


def peer(job: dict) -> None:
    """Runs under the other interpreter; prints one JSON line for each language, or the judged documents."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.utils.text import split_into_parts, split_into_words

    if job.get("parity"):
        filters = {
            "repetition": GopherRepetitionFilter(),
            "quality": GopherQualityFilter(),
            "c4": C4QualityFilter(filter_no_terminal_punct=False),
            "fineweb": FineWebQualityFilter(),
        }
        for text in job["parity"]:
            split_into_parts.cache_clear()
            judged = {name: f.filter(Document(text=text, id="0")) for name, f in filters.items()}
            reasons = {name: None if found is True else found[1] for name, found in judged.items()}
            print(json.dumps({"words": split_into_words(text, CODES["en"]), "reasons": reasons}))
        return
    for lang, texts in job["texts"].items():
        code = CODES[lang]
        filters = [
            GopherRepetitionFilter(9, 9, 9, 9, [(n, 9e9) for n in (2, 3, 4)], [(n, 9e9) for n in range(5, 11)],
                                   language=code),
            GopherQualityFilter(None, 10**9, 1e-9, 1e9, 1e9, 9, 9, 1e-12, -1, language=code),
            FineWebQualityFilter(line_punct_thr=-1, short_line_thr=9, char_duplicates_ratio=9, new_line_ratio=1e9,
                                 language=code),
        ]  # fmt: skip
        if lang == "en":
            filters.append(
                C4QualityFilter(
                    filter_no_terminal_punct=False,
                    filter_curly_bracket=False,
                    filter_lorem_ipsum=False,
                    min_num_sentences=0,
                    min_words_per_line=0,
                )
            )
        split_into_words(texts[0], code)
        start = time.process_time()
        for text in texts:
            split_into_parts.cache_clear()
            for f in filters:
                f.filter(Document(text=text, id="0"))
        seconds = time.process_time() - start
        print(json.dumps({"lang": lang, "mb_per_s": sum(len(t.encode()) for t in texts) / 1e6 / seconds}), flush=True)


def run_peer(python: str, job: dict, script: str = __file__) -> list[dict]:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        command = [python, script, "--as-peer", file.name]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=pathlib.Path(__file__).parent)
    if result.returncode:
        raise SystemExit(f"datatrove failed: {result.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def load(path: str, megabytes: float) -> list[str]:
    from kanana_jax.data.read import records

    texts, size = [], 0
    for record in records.read(path, source=""):
        if isinstance(record, dict):
            texts.append(record["text"])
            size += len(texts[-1].encode())
        if size > megabytes * 1e6:
            break
    return texts


def settings(lang: str, arg: str = ""):
    from kanana_jax import config as config_lib
    from kanana_jax.data.filters import FilterConfig

    file = pathlib.Path(__file__).parents[1] / f"configs/data/{lang}.py"
    read = config_lib.read_config_file(f"{file}:{arg}" if arg else str(file))
    return config_lib.build(FilterConfig, read.filters[lang], lang)


def signals(lang: str) -> Callable[[list[str]], object]:
    """A filter that measures everything and drops nothing."""
    from kanana_jax.data.filters import Filter

    judge = Filter(dataclasses.replace(settings(lang), rules={}, pii=False, language="", quality={})).judge
    return lambda texts: judge([{"id": "", "text": text, "source": ""} for text in texts])


def personal_data(lang: str, texts: list[str]) -> Callable[[list[str]], object]:
    from kanana_jax.data.filters import pii

    return lambda texts: [pii.replace(text) for text in texts]


def language(lang: str, texts: list[str]) -> Callable[[list[str]], object]:
    from kanana_jax.data.filters.language import shares

    return lambda texts: shares(texts, lang)


def quality(lang: str, texts: list[str]) -> Callable[[list[str]], object]:
    from kanana_jax.data.quality import Classifier, ClassifierConfig, QualityModel, training

    draw, examples = random.Random(0), []
    for text in texts:
        words = list(text) if lang == "ja" else text.split(" ")
        shuffled = (" " * (lang != "ja")).join(draw.sample(words, len(words)))
        examples += [training.Example({"text": text}, True), training.Example({"text": shuffled}, False)]
    config = ClassifierConfig(text="character" if lang == "ja" else "word", epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        _, report = training.fit(examples, examples, config, pathlib.Path(folder) / "model.bin")
        return Classifier(dataclasses.replace(QualityModel(**report["model"]), max_characters=0))


# What else is measured where asked for, each from a language and its texts to what works on some of them.
ALONE = {"pii": personal_data, "language": language, "quality": quality}


def rate(work: Callable[[list[str]], object], texts: list[str]) -> float:
    """MB/s of the process's own time, the best of three; texts come in chunks, as in the batch job."""
    from kanana_jax.data.filters.job import JobConfig

    size, seconds = JobConfig().chunk, []
    work(texts[:1])
    for _ in range(3):
        start = time.process_time()
        for i in range(0, len(texts), size):
            work(texts[i : i + size])
        seconds.append(time.process_time() - start)
    return sum(len(text.encode()) for text in texts) / 1e6 / min(seconds)


def parity(python: str, texts: list[str]) -> dict:
    """Differences between datatrove's decisions and ours on its words, by filter and reasons."""
    import numpy as np

    from kanana_jax.data.arrays import characters, units
    from kanana_jax.data.filters import rules
    from kanana_jax.data.filters.signals import NAMES, Lexicon, measure

    config = settings("en", "published")
    judged = {name: rule for name, rule in config.rules.items() if rule.signal in NAMES}
    lexicon = Lexicon(config.stop_words)
    texts = [characters.normalise(text).strip() for text in texts]
    different: collections.Counter = collections.Counter()
    for text, theirs in zip(texts, run_peer(python, {"parity": texts})):
        starts, at = [], 0
        for word in theirs["words"]:
            at = text.index(word, at)
            starts.append(at)
            at += len(word)
        starts = np.array(starts, np.int64)
        words = units.Units(starts, starts + np.array([len(w) for w in theirs["words"]], np.int64))
        measured, _ = measure([text], "word", lexicon, config.c4, words=words)[0]
        broken = rules.broken_rules(judged, measured, {}, {})
        for name, reasons in RULES.items():
            mine = [rule for rule in broken if rule in reasons.values()]
            reason = theirs["reasons"][name]
            same = reasons[reason] in mine if reason else not mine
            if not same:
                different[f"{name}: datatrove {reason or 'keeps'}, ours {mine[0] if mine else 'keeps'}"] += 1
    return {"documents": len(texts), "differences": dict(different)}


def scaling(path: str, repeat: int) -> dict:
    """Wall seconds of the batch job with one and with two processes, each the least of some runs.

    On a machine that has other work to do these say little; processor seconds do: with two free processors the ratio
    can reach `cpu_1 / (cpu_2 / 2)`, and with many more `cpu_1 / cpu_2_parent`.
    """
    from kanana_jax.data.filters import job

    def cpu() -> tuple[float, float]:
        used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return tuple(u.ru_utime + u.ru_stime for u in used)

    best: dict[int, tuple[float, float, float]] = {}
    load = os.getloadavg()[0]
    for _ in range(repeat):
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                start, before = time.perf_counter(), cpu()
                job.run({"default": settings("ko")}, path, pathlib.Path(folder) / "out", job.JobConfig(workers))
                own, children = (b - a for a, b in zip(before, cpu()))
                best[workers] = min(best.get(workers, (1e9,)), (time.perf_counter() - start, own, children))
    return {
        "seconds_1": round(best[1][0], 1),
        "seconds_2": round(best[2][0], 1),
        "ratio": round(best[1][0] / best[2][0], 2),
        "cpu_1": round(best[1][1], 1),
        "cpu_2": round(best[2][1] + best[2][2], 1),
        "cpu_2_parent": round(best[2][1], 1),
        "load_before": round(load, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default="", help="interpreter with datatrove")
    parser.add_argument("--input", nargs="+", default=[], metavar="LANG=PATH")
    parser.add_argument("--mb", type=float, default=2.0, help="of each input")
    for name in ALONE:
        parser.add_argument(f"--{name}", action="store_true", help="measure it alone")
    parser.add_argument("--parity", type=int, default=0, metavar="N")
    parser.add_argument("--scaling", default="", metavar="PATH")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="runs of --scaling, the best counts")
    parser.add_argument("--as-peer", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_peer:
        peer(json.loads(pathlib.Path(options.as_peer).read_text(encoding="utf-8")))
        return
    texts: dict[str, list[str]] = {}
    for item in options.input:
        lang, _, path = item.partition("=")
        texts.setdefault(lang, []).extend(load(path, options.mb))
    if options.parity:
        print(json.dumps(parity(options.peer, texts["en"][: options.parity])))
    else:
        theirs = {}
        if options.peer:
            theirs = {row["lang"]: row["mb_per_s"] for row in run_peer(options.peer, {"texts": texts})}
        for lang, found in texts.items():
            speed = rate(signals(lang), found)
            line = {"lang": lang, "documents": len(found), "ours_mb_per_s": round(speed, 2)}
            if lang in theirs:
                line |= {"datatrove_mb_per_s": round(theirs[lang], 4), "ratio": round(speed / theirs[lang], 1)}
            for name in ALONE:
                if getattr(options, name):
                    line[f"{name}_mb_per_s"] = round(rate(ALONE[name](lang, found), found), 2)
            print(json.dumps(line), flush=True)
    if options.scaling:
        print(json.dumps(scaling(options.scaling, options.repeat)))


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
