"""The Korean edu filter: a fastText classifier of educational text, trained in rounds on an annotator's labels.

    kanana quality train --config configs/data/edu_ko.py:'web/*.jsonl.gz' --output edu

The annotator is any endpoint with OpenAI's protocol, here a model served on this machine. Its labels are kept in
`edu/labels.jsonl`, and no document is labelled twice. The paper (arXiv:2502.18934, §2.1) trains in rounds, each adding
the educational documents that the previous round found; it does not state how many documents or rounds.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "web/*.jsonl.gz"):
    c = ConfigDict()
    c.quality = dict(
        # Character n-grams of length two to four match the stem of an eojeol, whatever particle follows.
        classifier=dict(text="word", word_ngrams=2, min_subword=2, max_subword=4),
        loop=dict(
            pool=(arg,),
            lang="ko",
            good_from=3,
            seed_documents=2000,
            evaluation_documents=1000,
            candidates=1000,
            rounds=4,
        ),
        endpoint=dict(url="http://localhost:8000/v1", model="annotator", key_variable="", max_requests=8000),
    )
    return c
