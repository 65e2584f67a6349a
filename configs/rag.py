"""Training data for answering from documents, generated from your documents (arXiv:2502.18934, §4.2, Figure 6).

    kanana run --config configs/rag.py:MODEL,DOCUMENTS --workdir runs/rag
    kanana run --config configs/sft.py:MODEL,runs/rag/made/conversations.jsonl --workdir runs/rag_sft
    kanana run --config configs/dpo.py:runs/rag_sft/sft,runs/rag/made/pairs.jsonl --workdir runs/rag_dpo

MODEL is a chat model; DOCUMENTS is a file or folder. The first command writes conversations for SFT and preference
pairs for DPO. The model writes the questions and answers and also judges them, which small models cannot do. To use a
model behind an OpenAI-compatible endpoint instead, set `--config.made.rag_data.endpoint.url=URL` and
`--config.made.rag_data.endpoint.model=NAME`; `--config.made.rag_data.grounding=words` needs no judge. The paper finally
merges the trained model with the one that it started from, to keep its general helpfulness (`kanana merge`).
"""

import pathlib

from ml_collections import ConfigDict


def get_config(arg: str = ""):
    model, _, documents = arg.partition(",")
    if not model or not documents:
        raise ValueError("name a model and documents: configs/rag.py:MODEL,DOCUMENTS")
    c = ConfigDict()
    c.name = "rag"
    c.seed = 0
    c.tokenizer = dict(path=f"{model}/model" if (pathlib.Path(model) / "model").is_dir() else model)
    c.sources = {}
    c.stages = ("made",)
    c.made = dict(
        kind="rag_data",
        start=model,
        rag_data=dict(
            documents=documents,
            passages=1000,
            grounding="claims",
            qa=dict(questions=2, keep=0.9, refine=1, prefer=1.0, reject=0.5, distractors=2, unanswerable=0.1),
            rollout=dict(samples=1, max_new_tokens=256, sampling=dict(temperature=0.7, top_p=0.9)),
            seq_len=2048,
        ),
    )
    return c
