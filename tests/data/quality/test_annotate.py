"""Labels: asked once, written at once, within the budget; the endpoint is a server that speaks the protocol."""

import http.server
import json
import threading
import time

import pytest

from kanana_jax.data.quality import annotate, prompts
from kanana_jax.data.quality import documents as documents_lib
from kanana_jax.data.quality import labels as labels_lib
from kanana_jax.errors import ConfigError, UserError


class _Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append((self.path, self.headers.get("Authorization"), body))
        if server.failures:
            self.send_error(server.failures.pop())
            return
        text = body["messages"][0]["content"]
        for word, status in server.refused.items():
            if word in text:
                self.send_error(status)
                return
        for word, hold in server.held.items():
            if word in text:
                hold()
        content = "잘 쓴 글이다.\n점수: 4" if "함수" in text else "광고다.\n점수: 0" if "할인" in text else "모르겠다."
        said = {"choices": [{"message": {"content": content}}], "usage": {"total_tokens": 100}}
        data = json.dumps(said if server.said is None else server.said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    found.requests, found.failures = [], []
    found.refused, found.held, found.said = {}, {}, None
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def _config(server, **changes):
    values = {"url": f"http://127.0.0.1:{server.server_port}/v1", "model": "m", "key_variable": "KANANA_TEST_KEY"}
    return annotate.EndpointConfig(**{**values, **changes})


def _documents(count):
    kinds = ("함수를 설명한다", "할인 행사", "이름")
    return [{"id": f"d{i}", "text": kinds[i % 3], "lang": "ko", "source": "x"} for i in range(count)]


def test_an_endpoint_is_asked_once_for_each_document(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_TEST_KEY", "secret")
    labels = labels_lib.Labels(tmp_path / "labels.jsonl", annotate.endpoint(_config(server)), batch=4)
    documents = _documents(9)
    found = labels(documents)
    assert found == [(4, 0, None)[i % 3] for i in range(9)]
    assert len(server.requests) == 9
    path, key, body = server.requests[0]
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert body["model"] == "m" and body["temperature"] == 0
    again = labels_lib.Labels(tmp_path / "labels.jsonl", annotate.endpoint(_config(server)))
    assert again(documents) == found and len(server.requests) == 9
    assert "secret" not in (tmp_path / "labels.jsonl").read_text()


def test_a_failing_endpoint_is_tried_again_and_what_was_labelled_stays(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_TEST_KEY", "k")
    waited = []
    server.failures = [503, 429]
    ask = annotate.endpoint(_config(server, concurrency=1), waited.append)
    assert ask(_documents(1)) == [4] and waited == [1.0, 2.0]
    labels = labels_lib.Labels(tmp_path / "labels.jsonl", ask, batch=2)
    server.failures = []
    labels(_documents(2))
    server.failures = [401]
    with pytest.raises(UserError, match="401"):
        labels(_documents(4))
    assert {i for i, _ in labels_lib.read_labels(tmp_path / "labels.jsonl")} == {"d0", "d1"}
    server.failures = [500] * 2
    with pytest.raises(UserError, match="did not answer after 2 attempts"):
        annotate.endpoint(_config(server, concurrency=1, attempts=2), waited.append)(_documents(1))


def test_a_budget_ends_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_TEST_KEY", "k")
    labels = labels_lib.Labels(tmp_path / "a.jsonl", annotate.endpoint(_config(server, max_requests=5)), batch=2)
    with pytest.raises(UserError, match="5 requests is used up"):
        labels(_documents(9))
    assert len(server.requests) == 4 == len(labels_lib.read_labels(tmp_path / "a.jsonl"))
    ask = annotate.endpoint(_config(server, max_tokens=150))
    assert ask(_documents(2)) and len(server.requests) == 6
    with pytest.raises(UserError, match="150 tokens"):
        ask(_documents(1))


def test_a_missing_key_is_named(server, monkeypatch):
    monkeypatch.delenv("KANANA_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="KANANA_TEST_KEY"):
        annotate.endpoint(_config(server))(_documents(1))
    assert annotate.endpoint(_config(server, key_variable=""))(_documents(1)) == [4]
    assert server.requests[-1][1] is None
    with pytest.raises(ValueError):
        _config(server, url="ftp://x")


def test_ones_own_model_can_judge():
    asked = []

    def answer(texts):
        asked.extend(texts)
        return ["Score: 2\nScore: 3", "none"]

    assert annotate.judge(answer, 100)(_documents(2)) == [3, None]
    assert "함수를 설명한다" in asked[0]


@pytest.mark.parametrize(
    "answer, score",
    [
        ("이유.\n점수: 3", 3),
        ("**점수: **5", 5),
        ("点数：4", 4),
        ("score: 2", 2),
        ("점수: 10", None),
        ("3", None),
        ("점수: 2.5", None),
    ],
)
def test_scores_are_read_only_where_they_are_given(answer, score):
    assert prompts.score_in(answer) == score


def test_the_prompt_shows_the_document_in_its_language_and_no_more_than_told():
    assert "가" * 50 in prompts.ask("가" * 80, "ko", 50) and "가" * 51 not in prompts.ask("가" * 80, "ko", 50)
    assert prompts.ask("{text}", "en", 50).count("{text}") == 1
    assert prompts.ask("x", "fr", 50) == prompts.ask("x", "en", 50)


def test_label_files_are_checked_and_torn_lines_asked_again(tmp_path):
    file = tmp_path / "labels.jsonl"
    file.write_text('{"id": "a", "label": 3}\n{"id": "b", "label": 9}\n')
    with pytest.raises(UserError, match=r"labels.jsonl:2 is not a label"):
        labels_lib.read_labels(file)
    file.write_text('{"id": "a", "label": 3}\n{"id": "b", "la')
    asked = []

    def annotator(batch):
        asked.extend(r["id"] for r in batch)
        return [1] * len(batch)

    documents = [{"id": i, "text": "x", "source": "s"} for i in "ab"]
    assert labels_lib.Labels(file, annotator)(documents) == [3, 1] and asked == ["b"]
    assert labels_lib.read_labels(file) == {("a", ""): 3, documents_lib.key_of(documents[1]): 1}
    with pytest.raises(UserError, match="cannot be read"):
        labels_lib.read_labels(tmp_path / "none")


def test_a_refused_document_costs_only_itself(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_TEST_KEY", "k")
    server.refused = {"이름": 400}
    documents = _documents(9)
    for _ in range(2):
        labels = labels_lib.Labels(tmp_path / "l.jsonl", annotate.endpoint(_config(server)))
        assert labels(documents) == [(4, 0, None)[i % 3] for i in range(9)]
    assert len(server.requests) == 9
    rows = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {r["id"]: r["reason"][:3] for r in rows if r["label"] is None} == {"d2": "400", "d5": "400", "d8": "400"}


def test_where_all_are_refused_it_is_not_the_documents(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_TEST_KEY", "k")
    server.refused = {"": 422}
    labels = labels_lib.Labels(tmp_path / "l.jsonl", annotate.endpoint(_config(server)))
    with pytest.raises(UserError, match="answered 422"):
        labels(_documents(20))
    assert labels_lib.read_labels(tmp_path / "l.jsonl") == {}
    assert labels(_documents(3)) == [None] * 3 and len(labels_lib.read_labels(tmp_path / "l.jsonl")) == 3


def test_each_answer_is_kept_when_it_comes(server, tmp_path, monkeypatch):
    """The last request is answered only when the others' labels can be read from the file."""
    monkeypatch.setenv("KANANA_TEST_KEY", "k")
    file, documents = tmp_path / "l.jsonl", _documents(8)
    documents[3]["text"] = "기다린다 함수"
    there = []

    def wait():
        for _ in range(1000):
            there[:] = labels_lib.read_labels(file)
            if len(there) == 7:
                return
            time.sleep(0.01)

    server.held = {"기다린다": wait}
    labels = labels_lib.Labels(file, annotate.endpoint(_config(server, concurrency=2)))
    assert labels(documents)[3] == 4 and len(there) == 7


def test_what_is_paid_for_is_kept_when_the_run_must_end(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_TEST_KEY", "k")
    server.refused = {"이름": 403}
    labels = labels_lib.Labels(tmp_path / "l.jsonl", annotate.endpoint(_config(server, concurrency=3)))
    with pytest.raises(UserError, match="403"):
        labels(_documents(30))
    answered = [body for _, _, body in server.requests if "이름" not in body["messages"][0]["content"]]
    assert len(labels_lib.read_labels(tmp_path / "l.jsonl")) == len(answered) < 20


@pytest.mark.parametrize(
    "message, usage, label",
    [
        ({"content": [{"type": "text", "text": "점수: "}, {"type": "text", "text": "2"}]}, {"total_tokens": 1}, 2),
        ({"content": None}, None, None),
        ({"content": "점수: 5"}, "many", 5),
        ({"content": "점수: 5"}, {"total_tokens": None}, 5),
        ({"content": "점수: 5"}, {"total_tokens": -1e99}, 5),
    ],
)
def test_answers_of_other_forms(server, monkeypatch, message, usage, label):
    monkeypatch.setenv("KANANA_TEST_KEY", "k")
    server.said = {"choices": [{"message": message}], "usage": usage}
    assert annotate.endpoint(_config(server))(_documents(2)) == [label] * 2


@pytest.mark.parametrize(
    "said", [[], {}, {"choices": []}, {"choices": [{"message": {"content": 3}}]}, {"error": "full"}]
)
def test_answers_of_no_form_are_told(server, monkeypatch, said):
    monkeypatch.setenv("KANANA_TEST_KEY", "k")
    server.said = said
    ask = annotate.endpoint(_config(server, attempts=2, concurrency=1), lambda seconds: None)
    with pytest.raises(UserError, match="full" if "error" in said else "content"):
        ask(_documents(1))
    assert len(server.requests) == 2
