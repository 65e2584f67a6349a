"""The one HTTP client: what a service is given, how long it may take and how much it may say.

A key goes to the service that it was meant for and to no other: no redirect is followed, plain HTTP must be allowed by
name unless it stays on this machine, and no message shows a key. A request ends within its time even where the other
side sends a byte every second, and an answer longer than asked for is not held.
"""

import dataclasses
import email.utils
import http.client
import ipaddress
import json
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kanana_jax.endpoint import transport
from kanana_jax.errors import ConfigError, UserError

RETRIED = (408, 409, 425, 429)  # and all from 500
LONGEST_WAIT = 300.0  # seconds that a service may ask to be left alone
Answer = TypeVar("Answer")


class Refused(UserError):
    """The service will not have this request, whenever it is sent.

    Attributes:
      reason: the status and what the service says.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Service:
    """A service that is asked over HTTP.

    Attributes:
      url: up to the paths that are asked for.
      key: sent as a bearer token; "": none.
      allow_plain_http: whether `http://` may leave this machine.
      timeout: seconds for one request, from the look-up of the name to the last byte.
      attempts: of one request, with 1, 2, 4 … seconds in between, or what the service asks for.
      max_bytes: of an answer.
    """

    url: str
    key: str = dataclasses.field(default="", repr=False)
    allow_plain_http: bool = False
    timeout: float = 120.0
    attempts: int = 5
    max_bytes: int = 8 << 20

    def __post_init__(self):
        check_url(self.url, self.allow_plain_http)
        if not self.key.isascii() or any(not c.isprintable() or c.isspace() for c in self.key):
            raise ConfigError(f"the key of {self.shown} holds a blank or a non-ASCII character: set it again")

    @property
    def shown(self) -> str:
        """The address without what may be a secret."""
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    def at(self, path: str) -> str:
        parts = urllib.parse.urlsplit(self.url)
        return parts._replace(path=f"{parts.path.rstrip('/')}{path}").geturl()


def check_url(url: str, allow_plain_http: bool = False) -> None:
    """Refuses an address that could not be asked, or not safely.

    Raises:
      ConfigError: it is no HTTP address, holds a password, or is plain HTTP to another machine without being allowed.
    """
    if not url.isascii() or any(not c.isprintable() or c.isspace() for c in url):
        raise ConfigError("url must be ASCII without spaces: write other characters as %XX")
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError("url has no host, or an invalid port") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError("url must begin with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise ConfigError("url must not contain a user name or password: give the key in an environment variable")
    if parts.scheme == "http" and not allow_plain_http and not is_loopback(host):
        raise ConfigError(
            f"url is plain http:// to {host}, where anyone in between can read the key and the texts: use https://, "
            "or set allow_plain_http=True"
        )


def is_loopback(host: str) -> bool:
    """Returns whether a name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def post_json(
    service: Service,
    path: str,
    body: Any,
    read: Callable[[Any], Answer],
    *,
    wait: Callable[[float], object] = time.sleep,
    begin: Callable[[], None] = lambda: None,
) -> Answer:
    """Posts JSON and reads the JSON answer.

    Args:
      read: what is wanted of the answer; a ValueError of it says that the answer is of another form, and the request is
        sent again.
      wait: sleeps between two attempts.
      begin: is called before each of them.

    Raises:
      Refused: status 400, 413 or 422: this request, not the service, is at fault.
      UserError: any other refusal, a redirect, or no sound answer in all attempts.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if service.key:
        headers["Authorization"] = f"Bearer {service.key}"
    data = json.dumps(body).encode()

    def attempt() -> Answer:
        begin()
        answer = _exchange(service, urllib.request.Request(service.at(path), data, headers))
        try:
            return read(json.loads(answer.decode("utf-8")))
        except RecursionError:
            raise ValueError("nested too deep") from None

    return _in_attempts(service, attempt, wait)


def get_text(service: Service, path: str, headers: Mapping[str, str], *, direct: bool = False) -> str:
    """Gets a text.

    Args:
      direct: never through a proxy.

    Raises:
      UserError: as `post_json`.
    """
    request = urllib.request.Request(service.at(path), headers=dict(headers))
    return _in_attempts(service, lambda: _exchange(service, request, direct).decode("utf-8"), time.sleep)


class _Later(Exception):
    """The service asks to be left alone for some seconds."""

    def __init__(self, text: str, seconds: float):
        super().__init__(text)
        self.seconds = seconds


def _in_attempts(service: Service, attempt: Callable[[], Answer], wait: Callable[[float], object]) -> Answer:
    reason = ""
    for number in range(service.attempts):
        asked = 0.0
        try:
            return attempt()
        except _Later as error:
            reason, asked = str(error), error.seconds
            if asked > LONGEST_WAIT:
                raise UserError(
                    f"{service.shown} asks to wait for {asked:.0f} s ({reason}): run again then to resume"
                ) from error
        except ssl.SSLCertVerificationError as error:
            raise UserError(f"{service.shown} has no valid certificate ({error.verify_message})") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = _clean(service, str(error) or type(error).__name__)
        if number + 1 < service.attempts:
            wait(max(2.0**number, asked))
    raise UserError(f"{service.shown} did not answer after {service.attempts} attempts ({reason}): run again to resume")


def _exchange(service: Service, request: urllib.request.Request, direct: bool = False) -> bytes:
    """One request; the body of a success."""
    # A proxy would carry what is meant for this machine out of it.
    near = direct or is_loopback(urllib.parse.urlsplit(service.url).hostname or "")
    try:
        found = transport.fetch(request, seconds=service.timeout, max_bytes=service.max_bytes, direct=near)
    except transport.TooLong as error:
        raise UserError(f"{service.shown} answered {error}, which is not a valid answer to the request") from error
    if 200 <= found.status < 300:
        return found.body
    raise _meaning(service, found)


def _meaning(service: Service, found: transport.Response) -> Exception:
    """Error for a status that is not a success."""
    status = f"{found.status} {_clean(service, found.reason)}".strip()
    if found.status in RETRIED or found.status >= 500:
        return _Later(status, _retry_after(found.headers.get("Retry-After", "")))
    if 300 <= found.status < 400:
        return UserError(
            f"{service.shown} answered {status}, a redirect{_target(service, found)}: redirects are not followed, "
            "since the key would go along; set url to where the service is"
        )
    if found.status in (400, 413, 422):
        reason = _reason(service, found.body) or status
        return Refused(f"{service.shown} answered {status}: {reason}", f"{found.status}: {reason}")
    return UserError(f"{service.shown} answered {status}: check url, model and key")


def _target(service: Service, found: transport.Response) -> str:
    """Target of a redirect, without parts that may be secret."""
    try:
        place = urllib.parse.urlsplit(_clean(service, found.headers.get("Location", "")))
    except ValueError:
        return ""
    return f" to {place.scheme}://{place.netloc.rpartition('@')[2]}" if place.netloc else ""


def _reason(service: Service, body: bytes) -> str:
    """Message in the body of a refusal, in OpenAI's form or verbatim."""
    text = body.decode("utf-8", "replace")
    try:
        said = json.loads(text)
        said = said.get("error", said)
        text = said["message"] if isinstance(said, dict) else said
    except (ValueError, KeyError, AttributeError, RecursionError):
        pass
    return _clean(service, str(text))


def _clean(service: Service, text: str) -> str:
    """Text of another side for a message: one short line without the key."""
    if service.key:
        text = text.replace(service.key, "…")
    return "".join(c if c.isprintable() else " " for c in text).strip()[:200]


def _retry_after(text: str) -> float:
    """Seconds of a `Retry-After` header (RFC 9110, §10.2.3), 0 where there is none that can be read."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:20])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
