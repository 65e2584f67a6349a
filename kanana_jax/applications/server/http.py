"""The HTTP server, with OpenAI's `/v1/models`, `/v1/completions` and `/v1/chat/completions`.

By default it listens on the loopback interface only; any other address requires a key. Web pages open on the same
machine cannot use it, since requests must be JSON and name this server as their host.
"""

import dataclasses
import http.server
import json
import logging
import secrets
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np

from kanana_jax.applications.function_calling import Caller
from kanana_jax.applications.server import asked
from kanana_jax.applications.server.asked import Asked, BadRequest, Defaults
from kanana_jax.applications.server.batches import Batches, End, Job
from kanana_jax.data.tokens import chat
from kanana_jax.data.tokens.tokenizer import encode_prompt
from kanana_jax.endpoint import is_loopback
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.inference.session import Session

log = logging.getLogger("kanana")
KEY = "KANANA_SERVE_KEY"  # the environment variable that holds the key
MOST_BYTES = 4 << 20  # per request
_SILENCE = 60.0  # seconds without a byte after which a connection is closed
Json = dict[str, Any]


class Server(http.server.ThreadingHTTPServer):
    """An HTTP server for one model.

    Args:
      name: name under which clients request the model.
      address: host and port; port 0: any free port.
      key: API key that clients must send as a bearer token; "": none.
      defaults: values of options that requests do not set.
      batches: queue for the model; default: a new one.

    Attributes:
      url: base URL, `http://HOST:PORT/v1`.

    Raises:
      ConfigError: the address is not loopback and there is no key.
      UserError: the address cannot be used.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        session: Session,
        name: str,
        address: tuple[str, int] = ("127.0.0.1", 8000),
        key: str = "",
        defaults: Defaults = Defaults(),
        batches: Batches | None = None,
    ):
        if not is_loopback(address[0]) and not key:
            raise ConfigError(
                f"--host {address[0]} is reached from other machines: set {KEY} to a secret that clients must send, or "
                "leave --host out"
            )
        self.session, self.name, self.key, self.defaults = session, name, key, defaults
        self.batches, self.created = batches or Batches(session), int(time.time())
        self.local = is_loopback(address[0])
        self._caller: Caller | None = None
        self._reading = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"cannot answer at {address[0]}:{address[1]} ({reason}): name another --port") from error

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        host = host.decode() if isinstance(host, bytes) else str(host)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores errors of connections that clients have closed."""

    def jobs(self, wanted: Asked) -> list[Job]:
        """The jobs that a request consists of, one per prompt.

        Raises:
          BadRequest: the request names another model, the chat template refuses the messages, a tool is invalid, or
            several prompts are to be streamed.
        """
        if wanted.model and wanted.model != self.name:
            raise BadRequest(f"there is no model '{wanted.model[:100]}' here: this server has '{self.name}'", 404)
        if wanted.stream and len(wanted.texts) > 1:
            raise BadRequest("'stream' needs a single prompt")
        tokenizer = self.session.tokenizer
        try:
            if wanted.texts:
                prompts = [encode_prompt(tokenizer, text) for text in wanted.texts]
            else:
                prompts = [chat.encode_chat(tokenizer, wanted.messages, wanted.tools or None, **wanted.more)]
            caller = self.caller() if wanted.tools else None
            tools = None if caller is None else caller.tools(wanted.tools, wanted.choice)
        except (UserError, TypeError) as error:
            raise BadRequest(str(error)) from error
        jobs = [self._job(wanted, prompt) for prompt in prompts]
        return [dataclasses.replace(job, caller=caller, tools=tools) for job in jobs]

    def caller(self) -> Caller:
        """The model's `Caller`, created at the first request with tools, since reading its vocabulary takes time."""
        with self._reading:
            self._caller = self._caller or Caller(self.session)
            return self._caller

    def _job(self, wanted: Asked, prompt: np.ndarray) -> Job:
        left = self.session.model.architecture.max_seq_len - len(prompt)
        tokens = max(1, min(self.defaults.max_tokens, left)) if wanted.max_tokens is None else wanted.max_tokens
        how = (wanted.sampling, wanted.seed, wanted.stops, wanted.stream, wanted.strip_thinking)
        return Job(prompt, tokens, *how)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "kanana", ""
    timeout = _SILENCE

    @property
    def own(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s", format % args)

    def do_GET(self) -> None:
        self._told(self._get)

    def do_POST(self) -> None:
        self._told(self._post)

    def _told(self, answer: Any) -> None:
        """Checks the client and answers the request; errors become an answer of one sentence."""
        try:
            self._check_caller()
            answer()
        except BadRequest as error:
            self._refuse(str(error), error.status)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            log.exception("a request failed")
            self._refuse(f"the server failed ({type(error).__name__}): see its log", 500)

    def _check_caller(self) -> None:
        host = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if self.own.local and not is_loopback(host):
            raise BadRequest("this server only serves its own machine: address it as localhost", 403)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.own.key and not secrets.compare_digest(given.encode(), self.own.key.encode()):
            raise BadRequest("the key is missing or wrong: send it as 'Authorization: Bearer KEY'", 401)

    def _get(self) -> None:
        path, server = urllib.parse.urlsplit(self.path).path.rstrip("/"), self.own
        about = {"id": server.name, "object": "model", "created": server.created, "owned_by": "kanana-jax"}
        if path == "/health":
            self._send({"status": "ok"})
        elif path == "/v1/models":
            self._send({"object": "list", "data": [about]})
        elif path == f"/v1/models/{urllib.parse.quote(server.name)}":
            self._send(about)
        else:
            raise BadRequest(f"there is no {path[:100] or '/'} here: GET /v1/models, POST /v1/chat/completions", 404)

    def _post(self) -> None:
        path = urllib.parse.urlsplit(self.path).path.rstrip("/")
        body = self._body()  # read even if the path is unknown; unread bytes would be taken for the next request
        if path not in ("/v1/chat/completions", "/v1/completions"):
            raise BadRequest(f"there is no {path[:100] or '/'} here: POST /v1/chat/completions or /v1/completions", 404)
        chats = path == "/v1/chat/completions"
        wanted = asked.parse(body, chat=chats, defaults=self.own.defaults)
        jobs = self.own.jobs(wanted)
        self.own.batches.submit(jobs)
        form = _Form(chats, self.own.name)
        if wanted.stream:
            self._stream(form, jobs[0], wanted.usage)
        else:
            ends = [_end(job) for job in jobs]
            self._send(form.whole(ends, jobs))

    def _body(self) -> bytes:
        kind, length = self.headers.get_content_type(), self.headers.get("Content-Length", "")
        self.close_connection = True  # until the whole body has been read
        if not (length.isascii() and length.isdigit()):
            raise BadRequest("a request must give its Content-Length", 411)
        if len(length) > 12 or int(length) > MOST_BYTES:
            raise BadRequest(f"the request has {length[:20]} bytes, more than the {MOST_BYTES} allowed", 413)
        if kind != "application/json":
            raise BadRequest(f"the body is {kind[:50]}: send JSON, with 'Content-Type: application/json'", 415)
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise BadRequest("the body is shorter than its Content-Length")
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        return body

    def _stream(self, form: "_Form", job: Job, usage: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for event in form.parts(job, usage):
                self.wfile.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            job.cancelled.set()
        except Exception as error:  # the status has already been sent
            told = str(error) if isinstance(error, BadRequest) else f"the server failed ({type(error).__name__})"
            self.wfile.write(f"data: {json.dumps(_error(told, 500))}\n\n".encode())
        self.close_connection = True

    def _refuse(self, message: str, status: int) -> None:
        try:
            self._send(_error(message, status), status)
        except OSError:
            self.close_connection = True

    def _send(self, value: Json, status: int = 200) -> None:
        data = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)


def _error(message: str, status: int) -> Json:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _events(job: Job) -> Iterator[str | End]:
    """Yields the parts of a job's answer as they are generated, and its end last."""
    while True:
        event = job.events.get()
        if isinstance(event, Exception):
            raise event
        yield event
        if isinstance(event, End):
            return


def _end(job: Job) -> End:
    *_, last = _events(job)
    assert isinstance(last, End)
    return last


class _Form:
    """The JSON form of answers, for chats or completions."""

    def __init__(self, chats: bool, model: str):
        self._chats = chats
        kind = "chat.completion" if chats else "text_completion"
        identity = f"{'chatcmpl' if chats else 'cmpl'}-{secrets.token_hex(12)}"
        self._head = {"id": identity, "object": kind, "created": int(time.time()), "model": model}

    def whole(self, ends: list[End], jobs: list[Job]) -> Json:
        choices = []
        for i, end in enumerate(ends):
            said = {"message": _message(end)} if self._chats else {"text": end.text}
            choices.append({"index": i, **said, "logprobs": None, "finish_reason": end.reason})
        return {**self._head, "choices": choices, "usage": _usage(ends, jobs)}

    def parts(self, job: Job, usage: bool) -> Iterator[Json]:
        head = self._head | ({"object": "chat.completion.chunk"} if self._chats else {})
        if self._chats:
            yield {
                **head,
                "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
            }
        end = None
        for event in _events(job):
            said = "" if isinstance(event, End) else event
            end = event if isinstance(event, End) else None
            if end is not None and end.calls:
                listed = [{"index": i, **call} for i, call in enumerate(_calls(end))]
                yield {**head, "choices": [{"index": 0, "delta": {"tool_calls": listed}, "finish_reason": None}]}
            delta = {"delta": {"content": said} if said else {}} if self._chats else {"text": said}
            yield {**head, "choices": [{"index": 0, **delta, "finish_reason": end.reason if end else None}]}
        if usage and end is not None:
            yield {**head, "choices": [], "usage": _usage([end], [job])}


def _message(end: End) -> Json:
    """The assistant's message; if it has calls and no text, its content is null, as clients expect."""
    calls = {"tool_calls": _calls(end)} if end.calls else {}
    return {"role": "assistant", "content": end.text or None if calls else end.text, **calls}


def _calls(end: End) -> list[Json]:
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.json()},
        }
        for call in end.calls
    ]


def _usage(ends: list[End], jobs: list[Job]) -> Json:
    read, wrote = sum(len(job.prompt) for job in jobs), sum(end.tokens for end in ends)
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
