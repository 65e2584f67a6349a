"""The server over real connections: the text of `kanana chat` and `generate`, alone, streamed and in a batch; refusals."""

import concurrent.futures
import http.client
import json
import threading

import jax
import own_models
import pytest

from kanana_jax.applications.server import asked
from kanana_jax.applications.server.batches import Batches, Job
from kanana_jax.applications.server.http import MOST_BYTES, Server
from kanana_jax.cli import main
from kanana_jax.data import microworld
from kanana_jax.data.tokens.tokenizer import encode_prompt
from kanana_jax.endpoint import Service, post_json
from kanana_jax.errors import ConfigError
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.session import Session

GREEDY = dict(max_new_tokens=16, sampling=SamplingConfig(), seed=0)
ASKED = dict(temperature=0, top_p=1, max_tokens=16)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = own_models.write(tmp_path_factory.mktemp("served"), "bpe", microworld.World.create(0, 100))
    return Session.load(str(folder), devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def server(session):
    with Server(session, "tiny", ("127.0.0.1", 0), batches=Batches(session, rows=2, waiting=8)) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _ask(server, path, body, method="POST", **headers):
    """Status and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    connection.request(method, f"/v1{path}", data, {"Content-Type": "application/json"} | headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def _chat(server, text, **more):
    status, body = _ask(server, "/chat/completions", {"messages": [{"role": "user", "content": text}], **ASKED, **more})
    assert status == 200, body
    return json.loads(body)


def _said(answer):
    return answer["choices"][0]["message"]["content"]


def test_a_chat_is_what_the_session_says(server, session):
    turns = [{"role": "user", "content": "안녕?"}]
    expected = session.answer(turns, **GREEDY)
    answer = _chat(server, "안녕?", model="tiny")
    assert _said(answer) == expected and answer["object"] == "chat.completion"
    assert answer["usage"]["completion_tokens"] == 16 and answer["choices"][0]["finish_reason"] == "length"
    parts = [{"type": "text", "text": "안"}, {"type": "text", "text": "녕?"}]
    body = {"messages": [{"role": "user", "content": parts}], **ASKED}
    # Our own client, as a judge or an annotator asks.
    assert post_json(Service(server.url), "/chat/completions", body, _said) == expected


def test_a_stream_is_the_same_text_in_parts(server):
    expected = _said(_chat(server, "한빛시는?"))
    body = {"messages": [{"role": "user", "content": "한빛시는?"}], "stream": True, **ASKED}
    status, text = _ask(server, "/chat/completions", body | {"stream_options": {"include_usage": True}})
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert status == 200 and lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    said = [event["choices"][0]["delta"].get("content", "") for event in events if event["choices"]]
    assert "".join(said) == expected and sum(map(bool, said)) > 1
    assert events[-2]["choices"][0]["finish_reason"] == "length" and events[-1]["usage"]["completion_tokens"] == 16


def test_many_at_once_get_what_each_gets_alone(server, session):
    prompts = ["한빛시는", "The city", "12 더하기 7은", "문서"]
    expected = [session.continue_texts([prompt], **GREEDY)[0] for prompt in prompts]
    together = {"prompt": prompts, **ASKED}
    status, body = _ask(server, "/completions", together)
    found = [choice["text"] for choice in json.loads(body)["choices"]]
    assert status == 200 and [p + text for p, text in zip(prompts, found)] == expected
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda p: _ask(server, "/completions", {"prompt": p, **ASKED})[1], prompts))
    assert [p + json.loads(a)["choices"][0]["text"] for p, a in zip(prompts, answers)] == expected


def test_a_stop_text_ends_an_answer_and_is_not_in_it(server):
    whole = _said(_chat(server, "안녕?"))
    stop = whole[len(whole) // 2 :][:2]
    answer = _chat(server, "안녕?", stop=[stop, "never"])
    assert _said(answer) == whole[: whole.index(stop)] and answer["choices"][0]["finish_reason"] == "stop"
    body = {"messages": [{"role": "user", "content": "안녕?"}], "stream": True, "stop": stop, **ASKED}
    lines = [line.removeprefix("data: ") for line in _ask(server, "/chat/completions", body)[1].split("\n\n") if line]
    said = [json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines[:-1]]
    assert "".join(said) == whole[: whole.index(stop)]


def test_a_seed_repeats_an_answer(server):
    how = dict(temperature=1.5, top_p=1, max_tokens=8)
    one, same, other = (_said(_chat(server, "아", seed=seed, **how)) for seed in (7, 7, 8))
    assert one == same != other


TURN = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/chat/completions", b'{"messages": [{"ro', 400, "the body is not JSON"),
        ("/chat/completions", b"[" * 100_000, 400, "the body is not JSON"),
        ("/chat/completions", b"\xff", 400, "the body is not JSON"),
        ("/chat/completions", b"[]", 400, "must be a JSON object"),
        ("/chat/completions", {}, 400, "at least one message"),
        ("/chat/completions", {"messages": [{"role": "user"}]}, 400, "'messages[0].content' must be a text"),
        ("/chat/completions", {"messages": [{"role": "judge", "content": "a"}]}, 400, "judge"),
        ("/chat/completions", {"messages": TURN, "n": 2}, 400, "'n' is not supported"),
        ("/chat/completions", {"messages": TURN, "temperature": "hot"}, 400, "'temperature' must be a number"),
        ("/chat/completions", {"messages": TURN, "temperature": -1}, 400, "temperature must be 0"),
        ("/chat/completions", {"messages": TURN, "max_tokens": 0}, 400, "'max_tokens' must be an integer"),
        ("/chat/completions", {"messages": TURN, "max_tokens": 9999}, 400, "exceed the model's 512"),
        ("/chat/completions", {"messages": TURN, "model": "gpt-5"}, 404, "this server has 'tiny'"),
        ("/chat/completions", b'\xef\xbb\xbf{"messages": "\\ud83d"}', 400, "surrogates not allowed"),
        (
            "/chat/completions",
            {"messages": [*TURN, {"role": "assistant", "content": "", "tool_calls": ["f"]}]},
            400,
            "messages[1]: call 1 of 'tool_calls' names no function",
        ),
        (
            "/chat/completions",
            {"messages": TURN, "chat_template_kwargs": {"tools": []}},
            400,
            "'chat_template_kwargs.tools' is not a variable",
        ),
        ("/completions", {"prompt": [1, 2]}, 400, "token ids are not supported"),
        ("/completions", {"prompt": ["a"] * 9, "max_tokens": 1}, 429, "try again later"),
        ("/embeddings", {"input": "a"}, 404, "there is no /v1/embeddings"),
    ],
)
def test_a_bad_request_is_told_in_one_sentence(server, path, body, status, told):
    found, text = _ask(server, path, body)
    message = json.loads(text)["error"]["message"]
    assert found == status and told in message and "\n" not in message


def test_who_may_ask_and_how_much(server, session):
    assert _ask(server, "/models", None, "GET")[1].count('"id": "tiny"') == 1
    assert _ask(server, "/models/tiny", None, "GET")[0] == 200 and _ask(server, "/x", None, "GET")[0] == 404
    body = {"messages": TURN}
    # As a page in a browser would: by another name of this machine, or as a form.
    assert _ask(server, "/chat/completions", body, Host="evil.example")[0] == 403
    assert _ask(server, "/chat/completions", body, **{"Content-Type": "text/plain"})[0] == 415
    assert _ask(server, "/chat/completions", None, **{"Content-Length": str(MOST_BYTES + 1)})[0] == 413
    with pytest.raises(ConfigError, match="reached from other machines: set KANANA_SERVE_KEY"):
        Server(session, "tiny", ("0.0.0.0", 0))
    with Server(session, "tiny", ("127.0.0.1", 0), "secret", batches=server.batches) as locked:
        threading.Thread(target=locked.serve_forever, daemon=True).start()
        assert _ask(locked, "/models", None, "GET")[0] == 401
        assert _ask(locked, "/models", None, "GET", Authorization="Bearer secret")[0] == 200
        locked.shutdown()


def test_an_answer_that_nobody_waits_for_ends_early(server, session):
    job = Job(encode_prompt(session.tokenizer, "한빛시는"), 16, SamplingConfig())
    job.cancelled.set()
    server.batches.submit([job])
    assert job.events.get().tokens < 16


def test_think_tags_are_left_out_on_request(session):
    body = {"messages": TURN, "strip_thinking": True}
    wanted = asked.parse(json.dumps(body).encode(), chat=True, defaults=asked.Defaults())
    new = session.tokenizer.encode("<think>음 END</think>답이다 END 더")
    job = Job(encode_prompt(session.tokenizer, "a"), 99, wanted.sampling, stops=("END",), strip_thinking=True)
    assert wanted.strip_thinking and job.written(session, new, False) == ("답이다 ", True)
    half = Job(job.prompt, 99, wanted.sampling, stops=("이다 EX",))
    begun = session.tokenizer.encode("답이다")
    assert half.written(session, begun, True) == ("답", False) and half.written(session, begun, False) == (
        "답이다",
        False,
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--port", "70000"], "--port must be at most"), (["--batch-size", "0"], "--batch-size must be at least 1"),
     (["--top-p", "0"], "0 < top_p"), ([], "is not a model")],
)  # fmt: skip
def test_bad_options_are_told(options, told, capsys):
    assert main(["serve", "nowhere", *options]) in (1, 2)
    assert told in capsys.readouterr().err


CITY = {"type": "object", "properties": {"city": {"enum": ["서울", "부산"]}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]


def test_a_call_that_is_wanted_fits_its_schema(server):
    pytest.importorskip("llguidance")
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", named):
        how = dict(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, max_tokens=96)
        (said,) = _chat(server, "서울 날씨?", **how)["choices"]
        (call,) = said["message"]["tool_calls"]
        assert said["finish_reason"] == "tool_calls" and said["message"]["content"] is None
        assert call["function"]["name"] == "weather" and call["type"] == "function"
        assert json.loads(call["function"]["arguments"])["city"] in ("서울", "부산")
    body = {"messages": [{"role": "user", "content": "서울 날씨?"}], "stream": True, **ASKED, **how}
    lines = [line.removeprefix("data: ") for line in _ask(server, "/chat/completions", body)[1].split("\n\n") if line]
    choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
    streamed = [c for choice in choices for c in choice["delta"].get("tool_calls", [])]
    assert [c["function"] for c in streamed] == [call["function"]] and choices[-1]["finish_reason"] == "tool_calls"
    # The result of a call is read, and text may follow.
    turns = [*body["messages"], said["message"], {"role": "tool", "tool_call_id": call["id"], "content": "맑음"}]
    status, answer = _ask(server, "/chat/completions", {"messages": turns, "tools": TOOLS, **ASKED})
    assert status == 200 and json.loads(answer)["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls")


@pytest.mark.parametrize(
    "more, told",
    [
        ({"tools": [{"type": "web"}]}, "tools[0]"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "wether"}}}, "weather"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        ({"tool_choice": "required"}, "no 'tools'"),
        ({"tools": [{"function": {"name": "f", "parameters": {"properties": {"a": {"not": {}}}}}}]}, "'not'"),
    ],
)
def test_tools_that_cannot_be_honoured_are_refused(server, more, told):
    pytest.importorskip("llguidance")
    status, body = _ask(server, "/chat/completions", {"messages": TURN, **ASKED, **more})
    assert status == 400 and told in json.loads(body)["error"]["message"]
