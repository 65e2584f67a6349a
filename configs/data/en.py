"""The English web filter: Gopher's and FineWeb's rules (arXiv:2112.11446, Table A1; arXiv:2406.17557, §3.6).

    kanana filter --config configs/data/en.py --input 'web/*.jsonl.gz' --lang en --output filtered

C4's rules are FineWeb's choice: all but terminal punctuation. Rules stand in FineWeb's order, and the first one that is
broken is a document's reason; the report counts all that are.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

GOPHER_REPETITION = {
    "duplicate_lines": 0.30,
    "duplicate_paragraphs": 0.30,
    "duplicate_line_characters": 0.20,
    "duplicate_paragraph_characters": 0.20,
    "top_2_gram": 0.20,
    "top_3_gram": 0.18,
    "top_4_gram": 0.16,
    "duplicate_5_gram": 0.15,
    "duplicate_6_gram": 0.14,
    "duplicate_7_gram": 0.13,
    "duplicate_8_gram": 0.12,
    "duplicate_9_gram": 0.11,
    "duplicate_10_gram": 0.10,
}
GOPHER_QUALITY = {
    "words": (50, 100_000),
    "mean_word_length": (3, 10),
    "hashes_per_word": (None, 0.1),
    "ellipses_per_word": (None, 0.1),
    "bullet_lines": (None, 0.9),
    "ellipsis_lines": (None, 0.3),
    "alphabetic_words": (0.8, None),
    "stop_words": (2, None),
}
C4 = {"c4_lorem_ipsum": (None, 0), "c4_curly_bracket": (None, 0), "c4_sentences": (5, None)}
FINEWEB = {
    "line_punctuation": (0.12, None),
    "short_lines": (None, 0.67),
    "fineweb_duplicate_line_characters": (None, 0.01),
    "newlines_per_word": (None, 0.3),
    # FineWeb's bound is on fastText's probability of English; this is the share of the text that CLD2 calls English.
    "language": (0.65, None),
}


def rules(*groups: Mapping[str, float | tuple[float | None, float | None]]) -> ConfigDict:
    """Signal → bounds as the config's rules, each named as its signal."""
    made = ConfigDict(sort_keys=False)
    for group in groups:
        for signal, bounds in group.items():
            low, high = bounds if isinstance(bounds, tuple) else (None, bounds)
            ends = {"min": low, "max": high}
            made[signal] = dict(signal=signal, **{k: float(v) for k, v in ends.items() if v is not None})
    return made


def get_config():
    c = ConfigDict()
    c.filters = dict(
        en=dict(
            unit="word",
            stop_words=("the", "be", "to", "of", "and", "that", "have", "with"),
            c4=dict(terminal_punctuation=False),
            cut_lines=True,
            language="en",
            pii=True,
            rules=rules(GOPHER_REPETITION, GOPHER_QUALITY, C4, FINEWEB),
        )
    )
    return c
