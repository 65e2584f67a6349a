"""The kinds of stages, one file each; a new kind is its file and its line here."""

from typing import Any

from kanana_jax.report.page import Chapter
from kanana_jax.stages import (
    best_of_n_chapter,
    cache_teacher,
    contrastive,
    cost_chapter,
    distill,
    dpo,
    evaluate,
    evaluation_chapter,
    grpo,
    kto,
    merge,
    mntp,
    on_policy_distill,
    online_dpo,
    paper_chapter,
    pretrain,
    prune,
    rag_data,
    reward,
    search,
    sft,
    upscale,
)
from kanana_jax.stages.kind import Kind

KINDS: dict[str, Kind[Any]] = {
    kind.name: kind
    for kind in (
        pretrain.KIND,
        upscale.KIND,
        prune.KIND,
        search.KIND,
        cache_teacher.KIND,
        distill.KIND,
        sft.KIND,
        reward.KIND,
        dpo.KIND,
        kto.KIND,
        online_dpo.KIND,
        grpo.KIND,
        on_policy_distill.KIND,
        merge.KIND,
        mntp.KIND,
        contrastive.KIND,
        rag_data.KIND,
        evaluate.KIND,
    )
}


def chapters() -> tuple[Chapter, ...]:
    """The chapters of a run's report, in the order of their kinds."""
    own = (kind.chapter for kind in KINDS.values() if kind.chapter is not None)
    more = best_of_n_chapter.CHAPTER, paper_chapter.CHAPTER, cost_chapter.CHAPTER
    return tuple(dict.fromkeys((evaluation_chapter.FIRST, *own, *more)))
