"""The input pipeline alone: tokens per second of one process on one core.

python benchmarks/data_pipeline.py [--input GLOB --lang ko] [--vocab-size 4096]
"""

import argparse
import json
import os
import pathlib
import tempfile
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", default="microworld://news/ko?count=4000", help="documents (default: embedded)")
    parser.add_argument("--lang", default="ko")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--batches", type=int, default=300)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    from kanana_jax.data.filters import keep_all
    from kanana_jax.data.read import sources
    from kanana_jax.data.stream import pipeline
    from kanana_jax.data.stream.encode import TextEncoder
    from kanana_jax.data.tokens import training as tokenizer_training

    with tempfile.TemporaryDirectory() as folder:
        cache = pathlib.Path(folder)
        source = sources.prepare("input", sources.SourceConfig(options.input, options.lang), cache)
        config = tokenizer_training.TokenizerConfig(vocab_size=options.vocab_size, train_bytes=4_000_000)
        tokenizer = tokenizer_training.train_tokenizer({options.lang: sources.Texts((source,))}, config, cache / "t")
        texts = [text for text, _ in zip(sources.Texts((source,)), range(3000))]
        start = time.perf_counter()
        tokens = sum(len(tokenizer.encode(text)) for text in texts)
        tokenise = tokens / (time.perf_counter() - start)
        stream = pipeline.BatchStream(
            {"input": source},
            {"input": 1.0},
            TextEncoder(tokenizer),
            {"input": keep_all},
            pipeline.PipelineConfig(),
            rows=range(16),
            batch_size=16,
            seq_len=1024,
            seed=0,
        )
        next(stream)
        start = time.perf_counter()
        for _ in range(options.batches):
            next(stream)
        rate = options.batches * 16 * 1024 / (time.perf_counter() - start)
        stream.close()
    print(json.dumps({"tokenise_tokens_per_s": round(tokenise), "pipeline_tokens_per_s": round(rate), "cores": 1}))


if __name__ == "__main__":
    main()
