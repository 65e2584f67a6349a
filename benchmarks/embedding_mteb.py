"""Our vectors under mteb's tasks and scorers, on texts from local files (`embedding_tasks.py --mteb`).

mteb is asked for nothing but its judgement: a task gets its data set from here and fetches none.
"""

from collections.abc import Callable, Sequence
from typing import Any

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.models.model_meta import ModelMeta
from mteb.similarity_functions import cos_sim, pairwise_cos_sim
from mteb.types import PromptType


class Encoder:
    """Vectors by a function, as mteb's `EncoderProtocol` has them.

    Args:
      vectors: of texts, behind an instruction or as documents have it (None).
      instruction: before queries.
    """

    mteb_model_meta = ModelMeta.create_empty({"name": "kanana-jax/embedder", "revision": "local"})

    def __init__(self, vectors: Callable[[Sequence[str], str | None], np.ndarray], instruction: str):
        self._vectors, self._instruction = vectors, instruction

    def encode(self, inputs: Any, *, prompt_type: PromptType | None = None, **others: Any) -> np.ndarray:
        del others
        texts = [text for batch in inputs for text in batch["text"]]
        return self._vectors(texts, self._instruction if prompt_type == PromptType.query else None)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        return pairwise_cos_sim(embeddings1, embeddings2)


def alike(name: str, model: Any, pairs: Any) -> dict[str, float]:
    """`cosine_spearman` of one of mteb's tasks of similar sentences, by its name, on pairs of ours."""
    task = mteb.get_task(name)
    (split,) = task.metadata.eval_splits
    columns = {"sentence1": pairs.first, "sentence2": pairs.second, "score": pairs.scores}
    return {"cosine_spearman": _scores(task, model, DatasetDict({split: Dataset.from_dict(columns)}), split)}


def found(name: str, model: Any, passages: Any, questions: Sequence[tuple[str, int]]) -> dict[str, float]:
    """`ndcg_at_10` of passages as a retrieval task of mteb's class."""

    class Passages(AbsTaskRetrieval):
        metadata = mteb.get_task("SQuADKorV1Retrieval").metadata.model_copy(update={"name": f"Passages-{name}"})

    corpus = {"id": [f"p{i}" for i in range(len(passages.texts))], "text": passages.texts}
    corpus["title"] = [""] * len(passages.texts)
    queries = {"id": [f"q{i}" for i in range(len(questions))], "text": [question for question, _ in questions]}
    data = {
        "corpus": Dataset.from_dict(corpus),
        "queries": Dataset.from_dict(queries),
        "relevant_docs": {f"q{i}": {f"p{right}": 1} for i, (_, right) in enumerate(questions)},
        "top_ranked": None,
    }
    return {"ndcg_at_10": _scores(Passages(), model, {"default": {"test": data}}, "test")}


def _scores(task: Any, model: Any, data: Any, split: str) -> float:
    """The task's main score."""
    task.dataset, task.data_loaded = data, True
    encoder = Encoder(model, model.embedder.about.instruction)
    (scores,) = task.evaluate(encoder, split, encode_kwargs={"batch_size": 256}).values()
    return float(scores[task.metadata.main_score])
