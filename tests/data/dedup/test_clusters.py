"""Near duplicates are like the document that is kept for them: against plain loops, made pages and exact similarities."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.dedup import clusters, local, minhash
from kanana_jax.data.dedup.index import DedupConfig
from kanana_jax.data.dedup.minhash import MinHashConfig

THRESHOLD = 0.8
ERROR = 0.0177  # of a sketch's estimate at the threshold


def _documents(rng, count):
    """Few texts, keys and fingerprints, so that much meets and is alike."""
    return clusters.Documents(
        rng.integers(0, max(1, count - 2), count),
        rng.integers(0, 3, (count, 2)).astype(np.uint64),
        rng.integers(0, 3, (count, 8)).astype(np.uint8),
        rng.integers(1, 4, count),
        rng.choice([-np.inf, 0.1, 0.5], count),
    )


def _plainly(found, keep, threshold):
    """The rule, document by document."""
    key = {"first": lambda i: i, "longest": lambda i: (-found.lengths[i], i), "best": lambda i: (-found.quality[i], i)}
    judged, kept = {}, []
    for i in sorted(range(len(found.texts)), key=key[keep]):
        same = [j for j in judged if found.texts[j] == found.texts[i]]
        if same:
            judged[i] = judged[same[0]]
            continue
        alike = []
        for j in kept:
            shares = found.bands[i].any() and found.bands[j].any() and (found.bands[i] == found.bands[j]).any()
            own, other = found.sketches[i].astype(int), found.sketches[j].astype(int)
            either, both = ((own > 0) | (other > 0)).sum(), ((own > 0) & (other > 0)).sum()
            equal = ((own == other) & (own > 0)).sum()
            estimate = max(equal - (both - equal) / 254, 0) / max(either, 1)
            if shares and estimate >= threshold:
                alike.append((estimate, j))
        best = max(alike, key=lambda pair: pair[0])[1] if alike else i  # of equal ones the preferred
        judged[i] = best
        if best == i:
            kept.append(i)
    return [judged[i] for i in range(len(found.texts))]


@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.sampled_from(["first", "longest", "best"]))
@settings(max_examples=150, deadline=None)
def test_verdicts_are_those_of_plain_loops(seed, count, keep):
    found = _documents(np.random.default_rng(seed), count)
    verdict, kept = clusters.verdicts(found, keep, 0.4)
    assert kept.tolist() == _plainly(found, keep, 0.4)
    assert ((verdict == clusters.KEPT) == (kept == np.arange(count))).all()
    assert (verdict[kept] == clusters.KEPT).all()
    gone = verdict != clusters.KEPT
    assert ((verdict == clusters.EXACT) == (gone & (found.texts == found.texts[kept]))).all()


def _words(rng, count):
    return ["".join(rng.choices("가나다라마바사아자차카타파하", k=5)) for _ in range(count)]


def _pages(similarity, count, rng):
    """Korean pages of 300 words of which any two have this similarity: a part of their own and one that all have."""
    runs = 298
    shared = round(2 * runs * similarity / (1 + similarity))
    common = _words(rng, shared + 2)
    return [" ".join(_words(rng, 300 - len(common)) + common) for _ in range(count)]


def _run(folder, texts, config=DedupConfig(lang="ko")):
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"id": str(i), "text": t}) for i, t in enumerate(texts)))
    report = local.run(config, [str(folder / "a.jsonl")], folder / "out")
    lines = map(json.loads, (folder / "out/duplicates.jsonl").open())
    return report, {int(line["id"]): int(line["kept"]) for line in lines}


def _jaccard(a, b):
    a, b = (set(minhash.shingle_hashes([text], MinHashConfig().shingles["ko"])[0].tolist()) for text in (a, b))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7])
def test_unlike_pages_of_one_site_stay(tmp_path, similarity):
    texts = _pages(similarity, 150, random.Random(5))
    assert _jaccard(texts[0], texts[1]) == pytest.approx(similarity, abs=0.01)
    report, gone = _run(tmp_path, texts)
    assert not gone and report["kept"] == 150
    # The same pages are duplicates where the config says that so much likeness makes one.
    assert len(_run(tmp_path / "low", texts, DedupConfig(lang="ko", threshold=similarity - 0.1))[1]) > 30


def test_likeness_is_not_passed_on(tmp_path):
    """A text that changes word by word: its ends are unlike, and each that goes is like the one kept for it."""
    rng = random.Random(3)
    words = _words(rng, 250)
    texts = []
    for step in range(120):
        texts.append(" ".join(words))
        words[(7 * step) % 250] = _words(rng, 1)[0]
    assert _jaccard(texts[0], texts[-1]) < 0.3
    for order in (texts, texts[::-1], rng.sample(texts, len(texts))):
        report, gone = _run(tmp_path / str(rng.random()), order)
        assert all(_jaccard(order[i], order[kept]) > THRESHOLD - 3 * ERROR for i, kept in gone.items())
        assert not set(gone) & set(gone.values())
        assert 10 <= report["kept"] <= 60  # some eight steps lower the similarity to the threshold


def test_the_report_says_how_often_a_pair_is_found(tmp_path):
    """150 pairs of 2,000 shingles at each similarity, from their bands and sketches."""
    rng, config = np.random.default_rng(0), DedupConfig()
    report, _ = _run(tmp_path, ["하나 둘 셋 넷"])
    assert report["threshold"] == THRESHOLD and report["standard_error"] == pytest.approx(ERROR, abs=1e-4)
    for similarity in (0.75, 0.8, 0.85):
        found = 0
        for _ in range(150):
            shared = round(2 * 2000 * similarity / (1 + similarity))
            values = rng.integers(0, 2**63, 4000 - shared).astype(np.uint64) * np.uint64(2)
            pair = [np.sort(values[:2000]), np.sort(np.concatenate([values[:shared], values[2000:]]))]
            documents = clusters.Documents(
                np.arange(2),
                np.stack([minhash.band_keys(own, config.hashing) for own in pair]),
                np.stack([minhash.sketch(own, config.hashing) for own in pair]),
                np.ones(2),
                np.zeros(2),
            )
            found += int(clusters.verdicts(documents, "first", THRESHOLD)[0][1] == clusters.NEAR)
        stated = report["probability"][f"{similarity:.2f}"]
        assert abs(found / 150 - stated) < 4 * np.sqrt(stated * (1 - stated) / 150) + 0.02
