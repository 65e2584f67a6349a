"""Authenticated lines of JSON between processes that share a secret; all other senders are ignored.

Each side first sends a nonce. Every later line carries an HMAC-SHA256 (RFC 2104) of both nonces, the sender's side, the
line's number and its text. Lines are not encrypted, but cannot be forged, changed, replayed or reflected.
"""

import contextlib
import hashlib
import hmac
import json
import selectors
import socket
import time
from collections.abc import Mapping
from typing import Any, Literal

from kanana_jax.errors import ConfigError, UserError

SECRET = "KANANA_SECRET"
MAX_LINE = 8192
_NONCE = 32
# Limits on connections that have not shown the secret: their number, and seconds until they are closed.
_STRANGERS, _PATIENCE = 128, 10.0


def secret_of(env: Mapping[str, str]) -> bytes:
    """The secret in the environment; empty if there is none.

    Raises:
      ConfigError: it has fewer than 16 characters.
    """
    found = env.get(SECRET, "").strip()
    if found and len(found) < 16:
        raise ConfigError(f"{SECRET} must have at least 16 characters: generate one with openssl rand -hex 32")
    return found.encode()


def interface_of(host: str) -> str:
    """The address to listen on for a host name: loopback for `localhost` and 127.0.0.1, else all interfaces ('')."""
    return "127.0.0.1" if host in ("localhost", "127.0.0.1") else ""


class Line:
    """One end of a connection: the 'hub' is the side that listens, the 'peer' the side that connects."""

    def __init__(self, connection: socket.socket, secret: bytes, side: Literal["hub", "peer"]):
        import secrets

        self.socket, self._secret, self._side = connection, secret, side
        self._mine, self._theirs = secrets.token_hex(_NONCE // 2).encode(), b""
        self._sent = self.received = 0
        self._pending = b""
        connection.sendall(self._mine + b"\n")

    @classmethod
    def connect(cls, address: tuple[str, int], secret: bytes, timeout: float) -> "Line":
        """Connects to a hub.

        Raises:
          OSError: nobody listens there, or the other side does not use this protocol.
        """
        connection = socket.create_connection(address, timeout=timeout)
        try:
            connection.settimeout(timeout)
            line = cls(connection, secret, "peer")
            while not line._theirs:
                line._pending += line._read()
                line._take_nonce()
        except BaseException:
            connection.close()
            raise
        return line

    def send(self, value: Any) -> None:
        """Sends a JSON value.

        Raises:
          OSError: the other side does not accept it.
        """
        text = json.dumps(value).encode()
        self.socket.sendall(self._seal(self._side, self._sent, text) + b" " + text + b"\n")
        self._sent += 1

    def receive(self) -> list[Any]:
        """Reads the values that have arrived.

        Raises:
          BlockingIOError, TimeoutError: nothing has arrived.
          OSError: the other side has closed the connection or does not have the secret.
        """
        self._pending += self._read()
        self._take_nonce()
        *whole, self._pending = self._pending.split(b"\n") if self._theirs else (self._pending,)
        if len(self._pending) > MAX_LINE:
            raise ConnectionError("a line without an end")
        return [self._open(line) for line in whole]

    def _read(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("hung up")
        return data

    def _take_nonce(self) -> None:
        if self._theirs:
            return
        nonce, end, rest = self._pending.partition(b"\n")
        if len(nonce) > _NONCE or (end and len(nonce) < _NONCE):
            raise ConnectionError("no nonce")
        if end:
            self._theirs, self._pending = nonce, rest

    def _open(self, line: bytes) -> Any:
        seal, _, text = line.partition(b" ")
        other = "peer" if self._side == "hub" else "hub"
        if len(line) > MAX_LINE or not hmac.compare_digest(seal, self._seal(other, self.received, text)):
            raise ConnectionError("a stranger")
        self.received += 1
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConnectionError("no JSON") from error

    def _seal(self, side: str, number: int, text: bytes) -> bytes:
        nonces = (self._mine, self._theirs) if self._side == "hub" else (self._theirs, self._mine)
        message = b"%b\0%b\0%b\0%d\0%b" % (side.encode(), *nonces, number, text)
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest().encode()

    def close(self) -> None:
        self.socket.close()


class Listener:
    """A server that accepts connections and receives from those with the secret; it drops all others.

    Attributes:
      known: connections that have shown the secret.

    Raises:
      UserError: the port cannot be opened.
    """

    def __init__(self, interface: str, port: int, secret: bytes):
        self._secret = secret
        try:
            self._server = socket.create_server((interface, port), backlog=_STRANGERS)
        except OSError as error:
            raise UserError(f"port {port} cannot be opened ({error.strerror}): name another") from error
        self._server.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._strangers: dict[Line, float] = {}
        self.known: set[Line] = set()

    def poll(self, seconds: float) -> list[tuple[Line, Any]]:
        """Waits at most `seconds`, and returns received values with the connections that sent them."""
        said: list[tuple[Line, Any]] = []
        for key, _ in self._selector.select(max(seconds, 0.0)):
            if key.data is None:
                self._accept()
            elif key.data in self.known or key.data in self._strangers:
                said += self._hear(key.data)
        now = time.monotonic()
        for line in [line for line, since in self._strangers.items() if now - since > _PATIENCE]:
            self.drop(line)
        return said

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:  # the caller is gone again, or this process has no free file descriptor
            time.sleep(0.02)
            self._drop_oldest(1)
            return
        try:
            connection.setblocking(False)
            line = Line(connection, self._secret, "hub")
        except OSError:
            connection.close()
            return
        self._strangers[line] = time.monotonic()
        self._selector.register(connection, selectors.EVENT_READ, data=line)
        self._drop_oldest(len(self._strangers) - _STRANGERS)

    def _drop_oldest(self, count: int) -> None:
        for line in list(self._strangers)[: max(count, 0)]:
            self.drop(line)

    def _hear(self, line: Line) -> list[tuple[Line, Any]]:
        try:
            said = line.receive()
        except BlockingIOError:
            return []
        except OSError:
            self.drop(line)
            return []
        if line.received and line in self._strangers:
            del self._strangers[line]
            self.known.add(line)
        return [(line, value) for value in said]

    def tell(self, line: Line, value: Any) -> None:
        """Sends a value to a known connection, and drops it if that fails."""
        try:
            line.send(value)
        except OSError:
            self.drop(line)

    def drop(self, line: Line) -> None:
        """Closes and forgets a connection."""
        self.known.discard(line)
        self._strangers.pop(line, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(line.socket)
        line.close()

    def close(self) -> None:
        for line in [*self.known, *self._strangers]:
            self.drop(line)
        self._selector.close()
        self._server.close()
