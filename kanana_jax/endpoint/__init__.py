"""The HTTP client of this package, with limits on time and size, retries, and protection of keys.

A key is only ever sent to the service that it is meant for: redirects are not followed, plain HTTP to another machine
must be allowed explicitly, and no message contains a key. A request ends within its time limit even if the server sends
one byte per second, and an answer that is too long is not kept in memory.
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

RETRIED = (408, 409, 425, 429)  # status codes; all from 500 on are retried as well
LONGEST_WAIT = 300.0  # seconds; a longer `Retry-After` is an error
Answer = TypeVar("Answer")


class Refused(UserError):
    """The service refuses this request, and would refuse it again.

    Attributes:
      reason: the status and the service's message.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Service:
    """A service that is reached over HTTP.

    Attributes:
      url: base URL, to which the paths of requests are appended.
      key: API key, sent as a bearer token; "": none.
      allow_plain_http: whether `http://` to another machine is allowed.
      timeout: seconds per attempt, from the DNS look-up to the last byte.
      attempts: number of attempts per request, with 1, 2, 4 … seconds in between, or longer if the service asks for it.
      max_bytes: maximum size of an answer.

    Raises:
      ConfigError: see `check_url`; or the key has spaces or non-ASCII characters.
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
        """The address without parts that may be secret, for messages."""
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    def at(self, path: str) -> str:
        """The URL of a path of the service."""
        parts = urllib.parse.urlsplit(self.url)
        return parts._replace(path=f"{parts.path.rstrip('/')}{path}").geturl()


def check_url(url: str, allow_plain_http: bool = False) -> None:
    """Refuses an invalid or unsafe address.

    Raises:
      ConfigError: it is not an HTTP address, contains a password, or is plain HTTP to another machine and that is not
        allowed.
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
    """Whether a host name or address refers to this machine."""
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
      read: extracts the result from the parsed answer; raises ValueError if the answer has another form, and the
        request is then sent again.
      wait: sleeps between two attempts.
      begin: called before each attempt.

    Raises:
      Refused: status 400, 413 or 422: the request is at fault, not the service.
      UserError: any other refusal, a redirect, or no valid answer in any attempt.
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


def chat_text(answer: Any) -> str:
    """The text of a chat completion: its parts joined, "" where there is none, half of a surrogate pair as `?`.

    Raises:
      ValueError: it is of another form.
    """
    try:
        content = answer["choices"][0]["message"]["content"]
        if isinstance(content, list):  # parts
            content = "".join(part["text"] for part in content if part.get("type", "text") == "text")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        said = answer.get("error") if isinstance(answer, dict) else None
        raise ValueError(
            f"its answer says {json.dumps(said)[:200]}"
            if said
            else "its answer has no choices[0].message.content: is it a chat endpoint?"
        ) from error
    if not isinstance(content, str | None):
        raise ValueError("choices[0].message.content of its answer is not text")
    return (content or "").encode("utf-8", "replace").decode()


def get_text(service: Service, path: str, headers: Mapping[str, str], *, direct: bool = False) -> str:
    """Gets a UTF-8 text.

    Args:
      direct: whether to bypass proxies.

    Raises:
      Refused, UserError: see `post_json`.
    """
    request = urllib.request.Request(service.at(path), headers=dict(headers))
    return _in_attempts(service, lambda: _exchange(service, request, direct).decode("utf-8"), time.sleep)


class _Later(Exception):
    """A failure that may be temporary; the service asks to wait for some seconds (0: it does not say)."""

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
    """Sends one request and returns the body of a successful answer."""
    # A proxy would send requests to this machine itself over the network.
    near = direct or is_loopback(urllib.parse.urlsplit(service.url).hostname or "")
    try:
        found = transport.fetch(request, seconds=service.timeout, max_bytes=service.max_bytes, direct=near)
    except transport.TooLong as error:
        raise UserError(f"{service.shown} answered {error}, which is not a valid answer to the request") from error
    if 200 <= found.status < 300:
        return found.body
    raise _meaning(service, found)


def _meaning(service: Service, found: transport.Response) -> Exception:
    """The exception for a status that is not a success."""
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
    """The target of a redirect for a message, without parts that may be secret."""
    try:
        place = urllib.parse.urlsplit(_clean(service, found.headers.get("Location", "")))
    except ValueError:
        return ""
    return f" to {place.scheme}://{place.netloc.rpartition('@')[2]}" if place.netloc else ""


def _reason(service: Service, body: bytes) -> str:
    """The message in the body of a refusal: OpenAI's error message, or the whole text."""
    text = body.decode("utf-8", "replace")
    try:
        said = json.loads(text)
        said = said.get("error", said)
        text = said["message"] if isinstance(said, dict) else said
    except (ValueError, KeyError, AttributeError, RecursionError):
        pass
    return _clean(service, str(text))


def _clean(service: Service, text: str) -> str:
    """A server's text made safe for a message: one short line without the key."""
    if service.key:
        text = text.replace(service.key, "…")
    return "".join(c if c.isprintable() else " " for c in text).strip()[:200]


def _retry_after(text: str) -> float:
    """Seconds of a `Retry-After` header (RFC 9110, §10.2.3); 0 if it is missing or cannot be parsed."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:20])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
