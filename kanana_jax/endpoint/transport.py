"""A single HTTP exchange with a hard time limit, a size limit and no redirects, whatever the server does."""

import contextlib
import dataclasses
import email.message
import functools
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from typing import Any


@dataclasses.dataclass(frozen=True)
class Response:
    """A response with any status."""

    status: int
    reason: str
    headers: email.message.Message
    body: bytes


class TooLong(Exception):
    """The answer has more bytes than allowed."""


def fetch(request: urllib.request.Request, *, seconds: float, max_bytes: int, direct: bool) -> Response:
    """Sends a request and reads the whole answer.

    Args:
      seconds: time limit from the DNS look-up to the last byte.
      max_bytes: maximum size of the answer's body.
      direct: whether to bypass the environment's proxies.

    Raises:
      TooLong: the answer is longer than `max_bytes`.
      OSError, http.client.HTTPException, ValueError: there is no complete answer.
    """
    deadline = _Deadline(seconds)
    opener = _opener(deadline, direct)
    with deadline:
        try:
            with opener.open(request, timeout=seconds) as answer:
                return Response(answer.status, answer.reason, answer.headers, _body(answer, max_bytes))
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, str(error.reason), error.headers, _body(error, max_bytes))
        except urllib.error.URLError as error:
            raise (error.reason if isinstance(error.reason, OSError) else ValueError(str(error.reason))) from error


def _body(answer: Any, limit: int) -> bytes:
    data = b""
    while part := answer.read(65536):
        data += part
        if len(data) > limit:
            raise TooLong(f"more than {limit} bytes")
    if getattr(answer, "length", None):  # fewer bytes than `Content-Length`
        raise ValueError("the answer was cut off")
    return data


class _Deadline:
    """Shuts down a request's sockets when its time is over, even if the server is still sending."""

    def __init__(self, seconds: float):
        self._seconds, self._sockets, self._over = seconds, list[socket.socket](), False
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def watch(self, opened: socket.socket) -> None:
        with self._lock:
            self._sockets.append(opened)
            if self._over:
                self._shut(opened)

    def _end(self) -> None:
        with self._lock:
            self._over = True
            for opened in self._sockets:
                self._shut(opened)

    @staticmethod
    def _shut(opened: socket.socket) -> None:
        with contextlib.suppress(OSError):  # already closed, or replaced by a TLS socket
            socket.socket.shutdown(opened, socket.SHUT_RDWR)  # for a TLS socket too, without the TLS shutdown

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        # After a shutdown, an answer without a length looks complete. If nothing arrives at all, the socket's own
        # timeout, which is the same, may fire first.
        if self._over or isinstance(error, TimeoutError):
            raise TimeoutError(f"no whole answer within {self._seconds:g} s") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(deadline: _Deadline, direct: bool) -> urllib.request.OpenerDirector:
    """An opener for HTTP and HTTPS only, which uses the environment's proxies unless `direct`."""

    def watched(kind: type[http.client.HTTPConnection], host: str, **options: Any) -> http.client.HTTPConnection:
        connection = kind(host, **options)

        def create(*arguments: Any, **more: Any) -> socket.socket:
            opened = socket.create_connection(*arguments, **more)
            deadline.watch(opened)
            return opened

        inner = connection.connect

        def connect() -> None:
            inner()
            deadline.watch(connection.sock)  # TLS wraps the first socket in its own

        vars(connection).update(_create_connection=create, connect=connect)
        return connection

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(functools.partial(watched, http.client.HTTPConnection), req)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(functools.partial(watched, http.client.HTTPSConnection), req, context=_tls())

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if direct else None),
        Plain(),
        Secure(),
        _NoRedirect(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
