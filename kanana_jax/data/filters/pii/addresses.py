"""E-mail and IP addresses."""

import ipaddress
import re
from collections.abc import Iterator

from kanana_jax.data.filters.pii import folding, labels
from kanana_jax.data.filters.pii.place import Candidate, Place

_HAN = "가-힣ぁ-ゖァ-ヺー一-鿿"
_TLD = r"(?:[A-Za-z]{2,24}|xn--[A-Za-z0-9-]{2,40})(?![A-Za-z0-9])"
_TLD_IDN = (
    r"(?:한국|닷컴|닷넷|삼성|中国|中國|公司|网络|香港|台湾|台灣|みんな|コム|世界|クラウド|ストア|セール|ファッション)"
)
_DOMAIN = re.compile(
    r"@ ?(?:(?:[A-Za-z0-9-]{1,63}\.){1,6}"
    + _TLD
    + r"|(?:[A-Za-z0-9-]{1,63}\.){0,2}[A-Za-z0-9"
    + _HAN
    + r"-]{1,30}\.(?:[A-Za-z0-9-]{1,63}\.){0,2}(?:"
    + _TLD_IDN
    + "|"
    + _TLD
    + "))"
)
_HIDDEN_AT = re.compile(
    r"[\[({<（［【] ?(?:at|골뱅이|앳|アット(?:マーク)?|あっと|@|＠) ?[\])}>）］】]|골뱅이|アットマーク"
    r"|(?<=[A-Za-z0-9])[\[(（]a[\])）](?=[A-Za-z0-9])",
    re.I,
)
# A part of every such address, which is found faster.
_HIDDEN = (
    "[at]",
    "(at)",
    "{at}",
    "<at>",
    "[AT]",
    "(AT)",
    "（at）",
    "［at］",
    "[ at ]",
    "( at )",
    "[a]",
    "(a)",
    "（a）",
)
_HIDDEN += (
    "[あっと]",
    "(あっと)",
    "（あっと）",
    "골뱅이",
    "アット",
    "[앳]",
    "(앳)",
    "[@]",
    "(@)",
    "（@）",
    "[＠]",
    "(＠)",
)
_HIDDEN_DOMAIN = re.compile(
    r" ?[A-Za-z0-9-]{1,63}(?:(?:\.| ?[\[({<（［] ?(?:dot|점|닷|ドット|\.) ?[\])}>）］] ?| (?:dot|점|닷|ドット) )"
    r"[A-Za-z0-9-]{1,63}){1,4}",
    re.I,
)
_HIDDEN_TLD = re.compile(
    r"(?:com|net|org|edu|gov|info|biz|io|co|me|ai|dev|app|kr|jp|cn|tw|uk|us|de|fr|ca|au|eu|in|nz|ch|nl|se|it|es)$", re.I
)
_LOCAL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-"
_MAIL_BEFORE = re.compile(r"(?:mail|메일|メ[ー-]ル|contact|연락|문의)[^\n@]{0,24}$", re.I)
_NO_DOMAIN = re.compile(
    r"\.(?:png|jpe?g|gif|svg|webp|bmp|ico|css|js|mjs|jsx|tsx|json|html?|php|xml|vue|mp4|webm|pdf)$", re.I
)
_NEXT_SENTENCE = re.compile(r"(?<=[a-z])\.[A-Z][a-z]+$")
_LONG_TLDS = {"info", "name", "shop", "site", "tech", "news", "blog", "online", "cloud", "email"}
_URL_BEFORE = re.compile(r"[a-z]://[^\s/@]{0,64}\Z")
_REPOSITORY = {"git", "hg", "svn"}

_IP4 = re.compile(r"(?<![0-9])(?<![0-9]\.)(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9])(?!\.[A-Za-z0-9])")
_IP6 = re.compile(r"(?<![0-9A-Za-z:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])")
_COLONS = re.compile(r":[0-9A-Fa-f]{1,4}:")
_OF_A_MACHINE = re.compile(r":[0-9]{2,5}(?![0-9.])|/[0-9]{1,2}(?![0-9./])| - - \[")


def mails(text: str) -> Iterator[Candidate]:
    """E-mail addresses, also with a full-width ＠, a domain in Hangul or kana, or as `name [at] example [dot] jp`."""
    if "＠" in text or ("@" in text and "．" in text):
        text = folding.text(text)
    if "@" in text:
        for match in _DOMAIN.finditer(text):
            spaced = match[0][1] == " " or text[match.start() - 1 : match.start()] == " "
            start = _local(text, match.start())
            end = match.end()
            if match[0].isascii() and (glued := _NEXT_SENTENCE.search(match[0])) and match[0].count(".") > 1:
                end = match.start() + glued.start()
            if start < 0 or spaced and not _MAIL_BEFORE.search(text[max(0, start - 32) : start]):
                continue
            if not (_is_code(text, start, match.start(), end) or _NO_DOMAIN.search(text, match.start(), end)):
                yield "email", start, end
    for match in _HIDDEN_AT.finditer(text) if any(sign in text for sign in _HIDDEN) else ():
        start = _local(text, match.start())
        domain = _HIDDEN_DOMAIN.match(text, match.end())
        if start >= 0 and text[start].isascii() and domain and _HIDDEN_TLD.search(domain[0]):
            yield "email", start, domain.end()


def _local(text: str, at: int) -> int:
    """Start of the name before `text[at]`, or -1: ASCII letters, or a name in another script."""
    piece = text[max(0, at - 65) : at]
    if piece.endswith(" "):
        piece, at = piece[:-1], at - 1
    run = piece[len(piece.rstrip(_LOCAL)) :]
    name = run.lstrip("._%+-")
    if name != run and piece[: -len(run)].endswith((")", "]", "}", ">")):
        return -1  # a remnant of a template: "{project}-name@example.com"
    if not name:
        while len(name) < 16 and len(name) < len(piece) and piece[-1 - len(name)].isalpha():
            name = piece[-1 - len(name) :]
    return at - len(name) if name and name[-1] not in "._%+-" and len(name) <= 64 else -1


def _is_code(text: str, start: int, at: int, end: int) -> bool:
    """The address of a repository, the user of a URL, or a product of matrices: `q@k.transpose(1, 0)`."""
    after = text[end : end + 1]
    if text[start:at] in _REPOSITORY and after in (":", "/"):
        return True
    if _URL_BEFORE.search(text, max(0, start - 80), start):
        return True
    last = text[text.rfind(".", at, end) + 1 : end].lower()
    return len(last) > 3 and last not in _LONG_TLDS and after in ("(", "[", "=")


def machines(text: str) -> Iterator[Candidate]:
    """Public IPv6 addresses; others identify nobody."""
    for match in _IP6.finditer(text) if _COLONS.search(text) else ():
        if len(match[0].replace("::", ":").strip(":").split(":")) > 2 and _public(match[0]):
            yield "ip", *match.span()


def machines_at(place: Place) -> Iterator[Candidate]:
    """Public IPv4 addresses, distinguished from versions and sections by neighbouring words, otherwise by length."""
    for match in _IP4.finditer(place.text, max(place.start - 1, 0), place.end):
        if _public(match[0]) and _is_machine(place.text, match):
            yield "ip", *match.span()


def _is_machine(text: str, match: re.Match) -> bool:
    label = labels.before(text, match.start())
    last = text[match.start() - 1 : match.start()]
    octets = [int(part) for part in match[0].split(".")]
    digits = len(match[0]) - 3
    if label.name == "ip" and label.gap <= 16 and not labels.names_version(text, match.end()):
        return True
    if label.name in ("version", "other") and label.gap <= 12 or labels.names_version(text, match.end()):
        return False
    if last.isascii() and (last.isalpha() or last in ("-", "_")) and last:
        return False
    long = digits >= 9 or digits == 8 and octets[0] >= 100
    if _OF_A_MACHINE.match(text[match.end() : match.end() + 8]):
        return True
    if labels.counts_from(text, match.end()) and label.name != "host":
        return long and octets[0] >= 100
    return long or label.name == "host" and label.gap <= 16 and (digits >= 8 or max(octets) >= 100)


def _public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.is_global and not found.is_multicast
