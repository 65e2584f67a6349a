"""The model class, tasks on local files, the verb; what needs torch is in `test_parity.py`."""

import dataclasses
import gzip
import io
import json
import shutil

import jax
import numpy as np
import pytest
import sentencepiece
from random_model import data, folder

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402

from kanana_jax import cli  # noqa: E402
from kanana_jax.data import microworld  # noqa: E402
from kanana_jax.data.tokens import chat  # noqa: E402
from kanana_jax.data.tokens.tokenizer import continuation, load_tokenizer  # noqa: E402
from kanana_jax.errors import ConfigError, UserError  # noqa: E402
from kanana_jax.evaluation import run, tasks  # noqa: E402
from kanana_jax.evaluation.harness import HarnessModel  # noqa: E402
from kanana_jax.evaluation.metrics import char_f1  # noqa: E402
from kanana_jax.inference.generate import generate  # noqa: E402
from kanana_jax.inference.sampling import SamplingConfig  # noqa: E402
from kanana_jax.inference.session import Session  # noqa: E402


@pytest.fixture(scope="module")
def model(folder):
    return HarnessModel(Session.load(str(folder), devices=jax.devices()[:1]), batch_size=4, max_new_tokens=40)


def _ask(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=a, idx=0) for a in arguments]


MESSAGES = [
    {"role": "system", "content": "Be brief.  "},
    {"role": "user", "content": "한빛시는 어디에 있나? <b>"},
    {"role": "assistant", "content": "동쪽"},
    {"role": "user", "content": "And then?"},
]


def test_a_chat_as_text_is_the_chat_in_ids(model):
    ids = chat.encode_chat(model.session.tokenizer, MESSAGES)
    assert model.tok_encode(model.apply_chat_template(MESSAGES)) == ids.tolist()
    begun = model.apply_chat_template(MESSAGES[:3], add_generation_prompt=False)
    assert begun.endswith("동쪽")
    with pytest.raises(UserError, match="'narrator' is unknown"):
        model.apply_chat_template([{"role": "narrator", "content": ""}])


def test_bos_stands_first_and_once(model):
    bos = model.session.tokenizer.bos_id
    plain = model.session.tokenizer.encode("서울 is").tolist()
    assert model.tok_encode("서울 is") == [bos, *plain]
    assert model.tok_encode("<|begin_of_text|>서울 is") == [bos, *plain]
    assert model.tok_encode("서울 is", add_special_tokens=False) == plain


def test_rolling_is_the_sum_over_windows(model):
    """Written out: each window of 512 begins with the token before it."""
    text = "가나다 라마바 abc " * 150
    whole = model.session.tokenizer.encode(text).tolist()
    assert len(whole) > 1024
    total, done, previous = 0.0, 0, model.prefix_token_id
    while done < len(whole):
        part = whole[done : done + 512]
        if len(part) == 512 or done == 0:
            context, target = [previous], part
        else:  # the last window has as much context as fits
            context, target = whole[len(whole) - 513 : done], part
        ((log_p, _),) = model._loglikelihood_tokens([(None, context, target)])
        total, done, previous = total + log_p, done + len(part), part[-1]
    (found,) = model.loglikelihood_rolling(_ask("loglikelihood_rolling", (text,)))
    assert found == pytest.approx(total, rel=1e-5)


def test_bos_is_never_scored(model):
    """Neither as the first token of a text, nor where it is spelt there: a short text is its log-likelihood alone."""
    text = "한빛시는 바다."
    ids = model.session.tokenizer.encode(text).tolist()
    ((alone, _),) = model._loglikelihood_tokens([(None, [model.prefix_token_id], ids)])
    for spelt in (text, "<|begin_of_text|>" + text):
        assert model.loglikelihood_rolling(_ask("loglikelihood_rolling", (spelt,))) == [pytest.approx(alone, rel=1e-5)]
        ((score, _),) = model.loglikelihood(_ask("loglikelihood", ("", spelt)))
        assert score == pytest.approx(alone, rel=1e-5)


def test_a_tokenizer_without_bos_gives_none(model, folder, tmp_path):
    """As transformers, for which the template in tokenizer.json decides."""
    shutil.copytree(folder, tmp_path / "plain")
    file = tmp_path / "plain/tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    tokenizer = load_tokenizer(tmp_path / "plain")
    plain = HarnessModel(dataclasses.replace(model.session, tokenizer=tokenizer))
    ids = tokenizer.encode("서울 is").tolist()
    before, after = plain._encode_pair("서울", " is")
    assert plain.tok_encode("서울 is") == before + after == ids
    assert plain._encode_pair(" ", "a")[0] == plain._encode_pair("", "a")[0] == [plain.prefix_token_id]


def test_no_new_tokens_are_the_prompt_alone(folder, capsys):
    long = "가나다 " * 400  # beyond the model's length
    assert cli.main(["generate", str(folder), "--prompt", "한빛", "--prompt", "", "--max-new-tokens", "0"]) == 0
    assert capsys.readouterr().out == "한빛\n\n"
    assert cli.main(["generate", str(folder), "--prompt", long, "--max-new-tokens", "0"]) == 0
    assert capsys.readouterr().out == f"{long}\n"
    assert cli.main(["generate", str(folder), "--prompt", long, "--max-new-tokens", "1"]) == 1
    assert "exceeds the model's 512: shorten the prompt" in capsys.readouterr().err


def test_every_end_of_the_model_ends_a_text(model, folder, tmp_path):
    """Those of config.json and generation_config.json, in generation and in evaluation."""
    shutil.copytree(folder, tmp_path / "f")
    greedy = dict(max_new_tokens=12, sampling=SamplingConfig(), seed=0)
    prompt = "한빛시는"
    first = np.concatenate([[model.prefix_token_id], model.session.tokenizer.encode(prompt)]).astype(np.int32)
    (ids,) = model.session.continue_ids([first], **greedy)
    end = int(ids[2])
    kept = ids[: ids.tolist().index(end)]
    config = json.loads((tmp_path / "f/config.json").read_text())
    for file, value in (
        ("config.json", config | {"eos_token_id": [config["eos_token_id"], end, 10**6]}),
        ("generation_config.json", {"eos_token_id": [end]}),
    ):
        shutil.copyfile(folder / "config.json", tmp_path / "f/config.json")
        (tmp_path / "f" / file).write_text(json.dumps(value))
        found = Session.load(str(tmp_path / "f"), devices=jax.devices()[:1])
        assert found.continue_texts([prompt], **greedy) == [prompt + continuation(found.tokenizer, first, kept)]
        (text,) = HarnessModel(found).generate_until(
            _ask("generate_until", (prompt, {"until": [], "max_gen_toks": 12}))
        )
        assert prompt + text == found.continue_texts([prompt], **greedy)[0]


def test_generation_ends_at_stop_sequences_of_its_own(model):
    free = model.generate_until(_ask("generate_until", ("한빛시는", {"until": [], "max_gen_toks": 40})))[0]
    stop = free[3:6]
    cut, other = model.generate_until(
        _ask(
            "generate_until",
            ("한빛시는", {"until": [stop], "max_gen_toks": 40}),
            ("한빛시는", {"until": [], "max_gen_toks": 40}),
        )
    )
    assert len(free) > 6 and cut == free[: free.index(stop)] and other == free


def test_the_space_after_a_prompt_stays(model, tmp_path):
    """A vocabulary that takes a first space away, as Llama 2's, against its library's reading of the whole sequence."""
    made = io.BytesIO()
    texts = [r["text"] for r in microworld.parse_uri("microworld://news/en?count=60&size=100")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=made, vocab_size=400, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", add_dummy_prefix=True, minloglevel=2, num_threads=1,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(made.getvalue())
    library = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    session = dataclasses.replace(model.session, tokenizer=load_tokenizer(tmp_path))
    other = HarnessModel(session, batch_size=4, max_new_tokens=40)
    prompts, greedy = ["The city64", "city is", "first dayR", "The"], SamplingConfig(temperature=0.0)
    texts = other.generate_until(_ask("generate_until", *((p, {"until": [], "max_gen_toks": 12}) for p in prompts)))
    with jax.set_mesh(session.mesh):
        ids = [np.asarray([library.bos_id(), *library.encode(p)], np.int32) for p in prompts]
        new = generate(session.params, session.model, ids, max_new_tokens=12, sampling=greedy, stop=session.stop_ids)
    whole = [library.decode([*a.tolist(), *b.tolist()]) for a, b in zip(ids, new)]
    assert [p + t for p, t in zip(prompts, texts)] == whole
    assert session.continue_texts(prompts, max_new_tokens=12, sampling=greedy, seed=0) == whole
    spaced = next(i for i, text in enumerate(texts) if text.startswith(" "))
    asked = (prompts[spaced], {"until": [texts[spaced][:3]], "max_gen_toks": 12})
    assert other.generate_until(_ask("generate_until", asked)) == [""]


def test_parts_are_averaged_by_size_and_documents_kept(model, data):
    found = run.evaluate(model, ["mmlu"], data_dir=data, limit=5, shots=2)
    parts = [found["results"][f"mmlu_{lang}"] for lang in ("en", "ko")]
    whole = found["results"]["mmlu"]
    assert whole["n"] == sum(p["n"] for p in parts) == 10 and whole["parts"] == 2 and whole["shots"] == 2
    values = found["documents"]["mmlu"]["acc"]
    assert whole["acc"] == pytest.approx(np.mean(values)) and len(values) == 10
    for name in ("mmlu_en", "mmlu_ko"):
        v = found["documents"][name]["acc"]
        assert found["results"][name]["acc_stderr"] == pytest.approx(np.std(v, ddof=1) / np.sqrt(5))
    again = run.evaluate(model, ["mmlu"], data_dir=data, limit=5, shots=3)
    assert again["results"]["mmlu"]["prompts"] != whole["prompts"] and whole["chat"] is False


def test_the_verb_and_its_comparison(folder, data, tmp_path, capsys):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    arguments = ["eval", str(folder), "--tasks", "niilc", "--data-dir", str(data), "--output", str(files[0])]
    assert cli.main([*arguments, "--limit", "4"]) == 0
    b = json.loads(files[0].read_text())
    files[1].write_text(files[0].read_text())
    assert b["results"]["niilc"]["n"] == len(b["documents"]["niilc"]["char_f1"]) == 4
    assert "niilc" in capsys.readouterr().out
    assert b["model"]["parameters"] > 10_000 and b["model"]["training_flops"] is None, "of a model from elsewhere"
    assert cli.main(["eval", "--compare", *map(str, files)]) == 0
    assert "+0.0000" in capsys.readouterr().out
    for name in ("x", "y"):
        (tmp_path / name / "c").mkdir(parents=True)
        (tmp_path / name / "c/a.json").write_text(files[0].read_text())
    assert cli.main(["eval", "--compare", str(tmp_path / "x/c/a.json"), str(tmp_path / "y/c/a.json")]) == 0
    told = capsys.readouterr().out
    assert "x/c/a" in told and "y/c/a" in told
    del b["results"]["niilc"]["prompts"]
    files[1].write_text(json.dumps(b))
    assert cli.main(["eval", "--compare", *map(str, files)]) == 1
    assert "b.json: task 'niilc' is not as 'kanana eval' writes it, prompts is missing" in capsys.readouterr().err
    b["results"]["niilc"]["prompts"] = "others"
    files[1].write_text(json.dumps(b))
    assert cli.main(["eval", "--compare", *map(str, files)]) == 2
    assert "was not asked in the same way" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, code, told",
    [
        (["--tasks", "niilc", "--output", "r.json"], 2, "give --data-dir"),
        (["--tasks", "niilc", "--output", "r.json", "--data-dir", "."], 2, "niilc/test.jsonl, which is not there"),
        (["--tasks", "niilc"], 2, "needs --output"),
        (["another", "--tasks", "niilc"], 2, "needs one MODEL"),
        (["--tasks", "niilc", "--output", "r.json", "--limit", "0"], 2, "--limit must be at least 1"),
        (
            ["--tasks", "niilc", "--output", "r.json", "--data-dir", "nosuch"],
            2,
            "data folder nosuch does not exist: give --data-dir a folder",
        ),
        (["--tasks", " , ", "--output", "r.json"], 2, "--tasks names no task"),
        (["--tasks", "niilc", "--output", "."], 2, "--output . is a folder"),
        (["--tasks", "niilc", "--output", "/dev/null/r.json"], 2, "/dev/null is not a folder that you may write to"),
        (["--tasks", "niilc", "--output", "r.json", "--seed", "-1"], 2, "--seed must be at least 0"),
        (["--tasks", "niilc", "--output", "r.json", "--shots", "-1"], 2, "--shots must be at least 0"),
        (["--tasks", "niilc", "--output", "r.json", "--training-flops", "-1"], 2, "--training-flops must be"),
        (["--tasks", "microworld", "--output", "r.json", "--shots", "2"], 2, "--shots does nothing for microworld_"),
        (
            ["--tasks", "microworld", "--output", "r.json", "--data-dir", "."],
            2,
            "--data-dir has no effect on microworld",
        ),
        (["--compare", "a.json", "b.json"], 2, "MODEL has no effect with --compare"),
    ],
)
def test_what_cannot_be_is_told(folder, tmp_path, monkeypatch, capsys, arguments, code, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Session, "load", lambda *_: pytest.fail("the model was loaded before"))
    assert cli.main(["eval", str(folder), *arguments]) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert told in error and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--compare", "a.json", "b.json", "--limit", "5"], "--limit has no effect with --compare"),
        (["--compare", "a.json", "b.json", "--plot", "p.svg"], "--plot has no effect with --compare"),
        (["--plot", "p.svg", "a.json", "--chat"], "--chat has no effect with --plot"),
        (["--plot", "p.svg", "a.json", "--seed", "3"], "--seed has no effect with --plot"),
    ],
)
def test_options_that_do_nothing_are_refused(capsys, arguments, told):
    assert cli.main(["eval", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_chat_without_chat_symbols_is_told_before_the_model_is_loaded(folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "f")
    file = tmp_path / "f/tokenizer.json"
    file.write_text(file.read_text().replace("<|eot_id|>", "<|eot_xx|>"))
    monkeypatch.setattr(Session, "load", lambda *_: pytest.fail("the model was loaded before"))
    command = ["eval", str(tmp_path / "f"), "--tasks", "microworld", "--chat", "--output", str(tmp_path / "r.json")]
    assert cli.main(command) == 1
    assert "the vocabulary has no <|eot_id|>, which its chat template writes" in capsys.readouterr().err


def test_every_task_file_names_a_task_and_its_source():
    for name, file in tasks.known().items():
        text = file.read_text(encoding="utf-8")
        assert text.startswith("# ") and f"\ntask: {name}\n" in text


def test_broken_lines_are_named(tmp_path):
    (tmp_path / "niilc").mkdir()
    (tmp_path / "niilc/test.jsonl").write_text('{"question": "a", "answers": ["b"]}\n{')
    (tmp_path / "niilc/dev.jsonl").write_text("")
    with pytest.raises(ConfigError, match="test.jsonl, line 2: not JSON"):
        tasks.load(["niilc"], tmp_path)
    for text, told in (
        (b'\n["a"]', "line 2: not a JSON object"),
        (
            b'{"question": "a", "answers": ["b"]}\n{"question": "c"}',
            "line 2: no field 'answers', which task 'niilc' needs",
        ),
        (b'{"question": "\xff"}', "line 1: not JSON"),
    ):
        (tmp_path / "niilc/test.jsonl").write_bytes(text)
        with pytest.raises(ConfigError, match=f"test.jsonl, {told}"):
            tasks.load(["niilc"], tmp_path)


def test_broken_archives_and_missing_keys_are_named(tmp_path):
    for name in ("mmlu", "bbh"):
        (tmp_path / name).mkdir()
    row = {"question": "a", "choices": ["b"] * 4, "answer": 0}
    for content, told in (
        (b"{}", r"test.jsonl.gz cannot be read \(Not a gzipped file"),
        (gzip.compress(b"{}")[:-6], "test.jsonl.gz cannot be read"),
        (gzip.compress(json.dumps(row).encode()), "test.jsonl.gz, line 1: no field 'subject', which task 'mmlu' needs"),
    ):
        (tmp_path / "mmlu/test.jsonl.gz").write_bytes(content)
        with pytest.raises(ConfigError, match=told):
            tasks.load(["mmlu"], tmp_path)
    (tmp_path / "bbh/bbh.jsonl.gz").write_bytes(gzip.compress(b'{"task": "x", "input": "a", "target": "b"}'))
    (tmp_path / "bbh/cot_prompts.jsonl").write_text('{"task": "y", "prompt": "p"}')
    with pytest.raises(ConfigError, match="field 'prompt', which neither .* has for task 'x'"):
        tasks.load(["bbh"], tmp_path)


def test_more_shots_than_rows_are_refused(model, data):
    with pytest.raises(ConfigError, match="'gsm8k' takes 12 examples and has 11: lower --shots"):
        run.evaluate(model, ["gsm8k"], data_dir=data, limit=1, shots=12)


def test_nothing_of_the_harness_is_printed_in_a_pipe(model, data, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)  # no git checkout
    run.evaluate(model, ["niilc", "mmlu"], data_dir=data, limit=1)
    assert capfd.readouterr() == ("", "")


def test_separators_within_a_question_end_no_line(tmp_path):
    (tmp_path / "niilc").mkdir()
    row = json.dumps({"question": "a\u2028b\x85c", "answers": ["d"]}, ensure_ascii=False)
    for split in ("test", "dev"):
        (tmp_path / f"niilc/{split}.jsonl").write_text(f"{row}\r\n\n{row}")
    (config,) = tasks.load(["niilc"], tmp_path).specs
    assert [doc["question"] for doc in config["custom_dataset"]()["test"]] == ["a\u2028b\x85c"] * 2


def test_character_f1_is_of_the_best_reference():
    assert char_f1(" 東京 ", ["大阪", "東京"]) == 1.0
    assert char_f1("東京都", ["東京"]) == pytest.approx(2 * 2 / 5)
    assert char_f1("x", ["東京"]) == 0.0
