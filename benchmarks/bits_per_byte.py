"""Held-out bits per byte of a finished run beside xz and Kneser-Ney n-grams that had the same text.

    python benchmarks/bits_per_byte.py runs/tiny [--stage student] [--orders 3 5]

xz: `xz -9` of (all documents that training read + held-out text) minus that of the former alone, so that the
training text is its dictionary (its window of 64 MiB holds them). n-grams: interpolated Kneser-Ney (Chen & Goodman
1998, §4.1.6) with one discount per order, D = n1 / (n1 + 2·n2), on the same tokens, no n-gram across documents.
"""

import argparse
import collections
import json
import lzma
import math
import pathlib


class KneserNey:
    """Interpolated Kneser-Ney over token ids; contexts are padded with `start`."""

    def __init__(self, documents, order: int, vocab: int, start: int):
        self.order, self.vocab, self.start = order, vocab, start
        counts = [collections.Counter() for _ in range(order + 1)]
        for document in documents:
            padded = [start] * (order - 1) + list(document[1:])
            for i in range(order - 1, len(padded)):
                counts[order][tuple(padded[i - order + 1 : i + 1])] += 1
        for k in range(order - 1, 0, -1):  # lower orders count the different words before an n-gram
            for gram in counts[k + 1]:
                counts[k][gram[1:]] += 1
        self.counts = counts
        self.total, self.types, self.discount = [], [], []
        for k in range(order + 1):
            total, types = collections.Counter(), collections.Counter()
            for gram, count in counts[k].items():
                total[gram[:-1]] += count
                types[gram[:-1]] += 1
            once = sum(c == 1 for c in counts[k].values())
            twice = sum(c == 2 for c in counts[k].values())
            self.total.append(total)
            self.types.append(types)
            self.discount.append(once / (once + 2 * twice) if once else 0.5)

    def probability(self, context: tuple, word: int) -> float:
        p = 1.0 / self.vocab
        for k in range(1, self.order + 1):
            history = context[len(context) - k + 1 :]
            total = self.total[k].get(history, 0)
            if total:
                d = self.discount[k]
                seen = max(self.counts[k].get((*history, word), 0) - d, 0.0)
                p = (seen + d * self.types[k][history] * p) / total
        return p

    def bits(self, documents) -> float:
        bits = 0.0
        for document in documents:
            padded = [self.start] * (self.order - 1) + list(document[1:])
            for i in range(self.order - 1, len(padded)):
                bits -= math.log2(self.probability(tuple(padded[i - self.order + 1 : i]), padded[i]))
        return bits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--orders", type=int, nargs="*", default=[3, 5])
    parser.add_argument("--stage", default="", help="of text; default: the last one")
    options = parser.parse_args()
    from ml_collections import ConfigDict

    from kanana_jax.data.read import sources
    from kanana_jax.data.stream import heldout, pipeline
    from kanana_jax.data.stream.encode import TextEncoder
    from kanana_jax.data.tokens.tokenizer import encode_document, load_tokenizer
    from kanana_jax.recipe import run as recipe

    config = json.loads((options.workdir / "config.json").read_text(encoding="utf-8"))["config"]
    parsed, stages = recipe.parse(ConfigDict(config))
    last = options.stage or list(stages)[-1]
    read = {n: s for n, s in parsed.sources.items() if n in stages[last].mixture}
    prepared = {n: sources.load_prepared(n, s, options.workdir / "data") for n, s in read.items()}
    tokenizer = load_tokenizer(options.workdir / "tokenizer")
    state = json.loads((options.workdir / last / "data_state.json").read_text(encoding="utf-8"))
    seen = pipeline.documents_seen(state, prepared, parsed.seed)
    texts_of: dict[str, list[str]] = {}
    for source in heldout.heldout_rows(prepared, TextEncoder(tokenizer), 256, parsed.evaluation.max_bytes):
        split = prepared[source.name].split("heldout")
        texts_of.setdefault(source.lang, []).extend(json.loads(split[i])["text"] for i in range(source.documents))
    card = json.loads((options.workdir / last / "model" / "model.json").read_text(encoding="utf-8"))
    training = [text for texts in seen.values() for text in texts]
    dictionary = "\n\n".join(training).encode()
    alone = len(lzma.compress(dictionary, preset=9))
    encoded = [encode_document(tokenizer, text).tolist() for text in training]
    models = {
        order: KneserNey(
            encoded, order, tokenizer.vocab_size, tokenizer.prefix[0] if tokenizer.prefix else tokenizer.eos_id
        )
        for order in options.orders
    }
    for lang, texts in texts_of.items():
        size = sum(len(text.encode()) for text in texts)
        together = len(lzma.compress(dictionary + b"\n\n" + "\n\n".join(texts).encode(), preset=9))
        documents = [encode_document(tokenizer, text).tolist() for text in texts]
        print(
            json.dumps(
                {
                    "language": lang,
                    "heldout_bytes": size,
                    "training_bytes": len(dictionary),
                    "training_tokens": sum(map(len, encoded)),
                    "model": round(card["evaluation"]["bits_per_byte"][f"lang/{lang}"], 4),
                    "xz -9": round(8 * (together - alone) / size, 4),
                    **{f"Kneser-Ney {order}-gram": round(m.bits(documents) / size, 4) for order, m in models.items()},
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
