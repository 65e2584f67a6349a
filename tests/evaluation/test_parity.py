"""The same numbers as lm-evaluation-harness's own `hf` model on the same folder."""

import jax
import own_models
import pytest
from random_model import WORLD, data

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from kanana_jax.data import microworld  # noqa: E402
from kanana_jax.evaluation import run, tasks  # noqa: E402
from kanana_jax.evaluation.harness import HarnessModel  # noqa: E402
from kanana_jax.inference.session import Session  # noqa: E402
from kanana_jax.interop import model_folder  # noqa: E402

NAMES = ["mmlu", "microworld", "gsm8k", "niilc"]


def _rolling():
    """Texts beyond the model's 512 tokens, in Korean and English."""
    import datasets

    texts = [d["text"] * 6 for lang in ("ko", "en") for d in microworld.documents(WORLD, "encyclopedia", lang, 4)]
    return {
        "task": "rolling",
        "custom_dataset": lambda **_: datasets.DatasetDict(
            {"test": datasets.Dataset.from_list([{"text": t} for t in texts])}
        ),
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
        "metadata": {"version": 1.0},
    }


@pytest.fixture(scope="module", params=own_models.VOCABULARIES)
def exported(request, tmp_path_factory):
    """A model as a stage leaves it, and the same exported."""
    place = tmp_path_factory.mktemp(request.param)
    stage = own_models.write(place, request.param, WORLD)
    model_folder.transfer(stage, place / "exported", keep_card=False)
    return stage, place / "exported"


def test_equal_to_the_harness_own_model(exported, data, monkeypatch):
    load = tasks.load

    def few(names, where, chat=False):
        """With few enough shots that no prompt is cut: ours keep BOS then, which the peer's lose."""
        found = load(names, where, chat)
        specs = [s | {"num_fewshot": min(s.get("num_fewshot") or 0, 3)} for s in found.specs]
        return found._replace(specs=[*specs, _rolling()])

    monkeypatch.setattr(tasks, "load", few)
    stage, folder = exported
    model = HarnessModel(Session.load(str(stage), devices=jax.devices()[:1]), batch_size=8)
    peer = HFLM(pretrained=str(folder), dtype="float32", batch_size=8, device="cpu")
    # It scores BOS given BOS where its tokenizer adds BOS, which ours never does: its rolling texts are encoded without.
    encode = peer.tok_encode
    rolled = peer.loglikelihood_rolling

    def rolling(*arguments, **options):
        monkeypatch.setattr(peer, "tok_encode", lambda text: encode(text, add_special_tokens=False))
        try:
            return rolled(*arguments, **options)
        finally:
            monkeypatch.setattr(peer, "tok_encode", encode)

    monkeypatch.setattr(peer, "loglikelihood_rolling", rolling)
    ours = run.evaluate(model, NAMES, data_dir=data, limit=6)["results"]
    assert not any(result["cut"] for result in ours.values())
    loaded = few(NAMES, data)
    parts = loaded.parts
    theirs = lm_eval.simple_evaluate(
        peer,
        tasks=loaded.specs,
        task_manager=loaded.manager,
        limit=6,
        bootstrap_iters=0,
        fewshot_random_seed=0,
    )["results"]
    compared = 0
    for name, metrics in theirs.items():
        for key, value in metrics.items():
            metric, _, filtered = key.partition(",")
            label = metric if filtered == "none" else f"{metric},{filtered}"
            if filtered and not metric.endswith("_stderr"):
                assert ours[name][label] == pytest.approx(value, rel=1e-3, abs=1e-3), (name, metric)
                compared += 1
    assert compared >= 12
    # A model that answers by chance answers otherwise than another: the numbers are no constants.
    assert len({ours[part]["acc"] for part in parts["microworld"]}) > 1
    assert 1 < ours["rolling"]["byte_perplexity"] < 400
    # Scores of a random model say little: the texts themselves, with stop strings that no symbol spells.

    def texts(of, until, *prompts):
        options = {"until": until, "max_gen_toks": 24}
        return of.generate_until(
            [Instance(request_type="generate_until", doc={}, arguments=(p, options), idx=0) for p in prompts]
        )

    for until, prompts in (
        ([], ("한빛시는", "The city of", "3 + 4 =")),
        (["y", "시"], ("한빛시는", "The city of", "3 + 4 =")),
    ):
        assert texts(model, until, *prompts) == texts(peer, until, *prompts)
    _stop_strings_within_symbols(model, peer, texts)
    total = sum(ours[part]["acc"] * ours[part]["n"] for part in parts["mmlu"])
    assert ours["mmlu"]["acc"] == pytest.approx(total / ours["mmlu"]["n"])


def test_chats_are_asked_as_by_the_harness_own_model(exported, data, monkeypatch):
    """The rendered prompts, and the ids that go into the models: BOS once."""
    stage, folder = exported
    model = HarnessModel(Session.load(str(stage), devices=jax.devices()[:1]), batch_size=2)
    peer = HFLM(pretrained=str(folder), batch_size=2, device="cpu")
    prompts = []
    for one in (model, peer):
        monkeypatch.setattr(
            one, "generate_until", lambda requests: ["3"] * len(requests)
        )  # what is written is no matter
        found = run.evaluate(one, ["gsm8k"], data_dir=data, limit=2, shots=2, chat=True)
        prompts.append([line["prompt"] for line in found["samples"]])
    assert prompts[0] == prompts[1] and len(prompts[0]) == 2
    for text in prompts[0]:
        assert model.tok_encode(text) == peer.tok_batch_encode([text])[0][0].tolist()


def _stop_strings_within_symbols(model, peer, texts):
    """Where the peer ends early: it looks for stop strings in a text that spells out symbols, `<|eot_id|>` for "e"."""
    from lm_eval.models.utils_hf import MultiTokenEOSCriteria

    symbol, letter = model.session.tokenizer.token_id("<|eot_id|>"), peer.tok_encode("y", add_special_tokens=False)
    ids = torch.tensor([[*letter, symbol]])
    assert "e" not in peer.tok_decode(ids[0]) and "e" not in model.session.tokenizer.decode([*letter, symbol])
    assert MultiTokenEOSCriteria("e", peer.tokenizer, 0, 1)(ids, None)
    assert not MultiTokenEOSCriteria("z", peer.tokenizer, 0, 1)(ids, None)
    prompts = ("한빛시는", "The city of", "3 + 4 =")
    for mine, theirs in zip(texts(model, ["e", "다"], *prompts), texts(peer, ["e", "다"], *prompts)):
        assert mine.startswith(theirs), "it may be shorter, and never another"
