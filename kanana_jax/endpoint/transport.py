"""One HTTP exchange within its time: no redirect, no more bytes than allowed, whatever the other side does."""

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
    """A response of any status."""

    status: int
    reason: str
    headers: email.message.Message
    body: bytes


class TooLong(Exception):
    """The answer has more bytes than allowed."""


def fetch(request: urllib.request.Request, *, seconds: float, max_bytes: int, direct: bool) -> Response:
    """Sends a request and reads the whole answer.

    Args:
      seconds: from the look-up of the name to the last byte.
      direct: never through a proxy of the environment.

    Raises:
      TooLong: more than `max_bytes` came.
      OSError, http.client.HTTPException, ValueError: no whole answer came.
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
    if getattr(answer, "length", None):  # what `Content-Length` promised is not all there
        raise ValueError("the answer was cut off")
    return data


class _Deadline:
    """Shuts a request's socket when its time is over, whatever the other side sends by then."""

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
        with contextlib.suppress(OSError):  # it is closed, or was handed to TLS
            socket.socket.shutdown(opened, socket.SHUT_RDWR)  # of a TLS socket too, without its farewell

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        # What came may look whole: an answer without a length ends where the socket does. A socket on which nothing
        # came at all has the same time, and may be first.
        if self._over or isinstance(error, TimeoutError):
            raise TimeoutError(f"no whole answer within {self._seconds:g} s") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(deadline: _Deadline, direct: bool) -> urllib.request.OpenerDirector:
    """HTTP and HTTPS alone, through the proxies of the environment unless `direct`."""

    def watched(kind: type[http.client.HTTPConnection], host: str, **options: Any) -> http.client.HTTPConnection:
        connection = kind(host, **options)

        def create(*arguments: Any, **more: Any) -> socket.socket:
            opened = socket.create_connection(*arguments, **more)
            deadline.watch(opened)
            return opened

        inner = connection.connect

        def connect() -> None:
            inner()
            deadline.watch(connection.sock)  # TLS has put its own in place of the first

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
