"""The HTTP client against servers that redirect, drip, lie about lengths and repeat what they were told."""

import contextlib
import email.utils
import json
import socket
import threading
import time

import pytest

from kanana_jax import endpoint
from kanana_jax.errors import ConfigError, UserError

KEY = "sk-very-secret"


class _Server:
    """A server of raw bytes: each request is answered by the next of `answers`, the last one again and again."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def service(self, **options):
        return endpoint.Service(f"http://127.0.0.1:{self.port}/v1?version=2", KEY, **{"attempts": 2, **options})

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection, contextlib.suppress(OSError):
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += connection.recv(65536)
            head, _, body = asked.partition(b"\r\n\r\n")
            length = next(
                (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")), 0
            )
            while len(body) < length:
                body += connection.recv(65536)
            self.requests.append((head.decode(), body))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            for part in [answer] if isinstance(answer, bytes) else answer():
                connection.sendall(part)

    def close(self):
        self._socket.close()


@pytest.fixture
def serve():
    made = []

    def start(*answers):
        made.append(_Server(*answers))
        return made[-1]

    yield start
    for server in made:
        server.close()


def _said(body=b'{"a": 1}', status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _post(service, waited=None, read=lambda answer: answer):
    return endpoint.post_json(service, "/ask", {"q": "물음"}, read, wait=(waited if waited is not None else []).append)


def test_what_is_sent_and_what_comes_back(serve):
    server = serve(_said('{"a": "답"}'.encode()))
    assert _post(server.service()) == {"a": "답"}
    head, body = server.requests[0]
    assert head.startswith("POST /v1/ask?version=2 HTTP/1.1") and json.loads(body) == {"q": "물음"}
    assert f"Authorization: Bearer {KEY}" in head


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_no_redirect_is_followed(serve, status):
    other = serve(_said())
    place = f"Location: http://user:{KEY}@localhost:{other.port}/x?key={KEY}"
    server = serve(_said(b"", status, place))
    with pytest.raises(UserError, match=rf"redirect to http://localhost:{other.port}: redirects are not followed") as error:
        _post(server.service())
    assert not other.requests and len(server.requests) == 1 and KEY not in str(error.value)


@pytest.mark.parametrize(
    "url, told",
    [
        ("http://198.51.100.7/v1", "plain http:// to 198.51.100.7"),
        ("http://localhost.example.com/v1", "plain http://"),
        ("https://me:pw-of-mine@host/v1", "user name or password"),
        ("ftp://host/v1", "must begin with"),
        ("https://", "must begin with"),
        ("https://host:port/", "an invalid port"),
        ("https://host/a b\r\nX: y", "ASCII without spaces"),
        ("file:///etc/passwd", "must begin with"),
    ],
)
def test_addresses_that_are_refused(url, told):
    with pytest.raises(ConfigError, match=told) as error:
        endpoint.Service(url, KEY)
    assert KEY not in str(error.value) and "pw-of-mine" not in str(error.value)


def test_addresses_that_are_not():
    for url in ("http://127.0.0.2:8000/v1", "http://[::1]:1/", "http://LOCALHOST/v1", "https://host.example/v1"):
        assert KEY not in repr(endpoint.Service(url, KEY))
    assert endpoint.Service("http://198.51.100.7/v1", KEY, allow_plain_http=True)
    with pytest.raises(ConfigError, match="holds a blank") as error:
        endpoint.Service("https://host/v1", f"{KEY}\n")
    assert KEY not in str(error.value)


def test_what_is_meant_for_this_machine_goes_through_no_proxy(serve, monkeypatch):
    proxy, server = serve(_said(b'{"a": "by proxy"}')), serve(_said())
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert _post(server.service()) == {"a": 1} and not proxy.requests
    far = endpoint.Service("http://service.example/v1", "", allow_plain_http=True)
    assert _post(far) == {"a": "by proxy"} and proxy.requests[0][0].startswith("POST http://service.example/v1/ask")
    with pytest.raises(UserError):  # what the machine says of itself is asked without one
        endpoint.get_text(endpoint.Service("http://x.invalid", allow_plain_http=True, attempts=1), "/", {}, direct=True)
    assert len(proxy.requests) == 1


def _dripping(first, *parts):
    """Sends a part every twentieth of a second, for ever."""

    def answer():
        yield first
        while True:
            for part in parts:
                time.sleep(0.05)
                yield part

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        _dripping(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
        _dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", b" "),
        _dripping(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        _dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        _dripping(b"HTTP/1.1 500 Bad\r\n\r\n", b"x"),
        _dripping(b'HTTP/1.1 200 OK\r\n\r\n{"a": 1}', b""),
    ],
)
def test_a_request_ends_within_its_time(serve, answer):
    """The last one sends a whole answer and never ends it: without a length nobody knows that it is whole."""
    server = serve(answer)
    with pytest.raises(UserError, match=r"after 2 attempts \(no whole answer within 0.3 s\)"):
        _post(server.service(timeout=0.3))
    assert len(server.requests) == 2


def test_an_answer_is_not_held_beyond_its_limit(serve):
    def endless():
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b" " * 65536

    server = serve(endless)
    with pytest.raises(UserError, match="more than 1000000 bytes"):
        _post(server.service(max_bytes=1_000_000))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer, told",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "cut off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{", "IncompleteRead"),
        (b"no HTTP at all\r\n\r\n", "no HTTP"),
        (b"", "closed connection"),
        (_said(b'{"a": "\xe9"}'), "utf-8"),
        (_said(b"<html>"), "Expecting value"),
        (_said(b"[" * 100_000), "nested too deep"),
        (_said(b"", "204 No Content"), "Expecting value"),
        (_said(b'{"b": 2}'), "another form"),
        (_said(b"", f"503 {KEY}\x1b[31m busy"), "503 …"),
    ],
)
def test_odd_answers_are_asked_again_and_then_told(serve, answer, told):
    def read(said):
        if "a" not in said:
            raise ValueError("another form")
        return said["a"]

    server, waited = serve(answer, _said()), []
    assert _post(server.service(), waited, read) == 1 and waited == [1.0]
    server = serve(answer)
    with pytest.raises(UserError, match=told) as error:
        _post(server.service(), waited, read)
    text = str(error.value)
    assert len(server.requests) == 2 and KEY not in text and text.isprintable() and "run again" in text


def test_a_service_is_left_alone_for_as_long_as_it_asks(serve):
    soon = email.utils.formatdate(time.time() + 100, usegmt=True)
    for asked, low, high in (("7", 7, 7), (soon, 90, 100), ("-3", 1, 1), ("tomorrow", 1, 1), ("", 1, 1)):
        server, waited = serve(_said(b"", "429 Too Many", f"Retry-After: {asked}"), _said()), []
        assert _post(server.service(), waited) == {"a": 1}
        assert low <= waited[0] <= high, asked
    server = serve(_said(b"", "503 Down", f"Retry-After: {'9' * 30}"))
    with pytest.raises(UserError, match="asks to wait for"):
        _post(server.service())
    assert len(server.requests) == 1


def test_a_refused_request_is_told_from_a_refusing_service(serve):
    body = json.dumps({"error": {"message": f"too long for {KEY}\n" + "x" * 999}}).encode()
    for status in ("400 Bad Request", "413 Too Large", "422 Unprocessable"):
        server = serve(_said(body, status))
        with pytest.raises(endpoint.Refused) as error:
            _post(server.service())
        assert error.value.reason.startswith(f"{status[:3]}: too long for … xxx") and len(error.value.reason) < 300
        assert len(server.requests) == 1 and KEY not in str(error.value)
    for status in ("401 No", "402 Pay", "403 No", "404 None", "407 Proxy"):
        server = serve(_said(body, status))
        with pytest.raises(UserError, match=f"{status}: check url, model and key") as error:
            _post(server.service())
        assert not isinstance(error.value, endpoint.Refused) and len(server.requests) == 1
