"""Decoding of .csv files: UTF-8, CP949 if it is unambiguous, otherwise an error that names the likely encoding."""

import pathlib
import re

from kanana_jax.errors import ConfigError

# Legacy codecs that offices in these countries still use, and the letters that make a decoded text plausible.
_SYLLABLES, _KANA, _HAN = "\uac00-\ud7a3", "\u3041-\u3096\u30a1-\u30fa\u30fc", "\u4e00-\u9fff"
_CODECS = (
    ("cp949", "CP949 (Korean)", _SYLLABLES),
    ("cp932", "Shift_JIS (Japanese)", _KANA + _HAN),
    ("euc_jp", "EUC-JP (Japanese)", _KANA + _HAN),
    ("gb18030", "GB18030 (Chinese)", _HAN),
    ("big5", "Big5 (Chinese)", _HAN),
)
_OFTEN = 3.0  # weight of kana and of the commonest hanja, which text in another encoding rarely decodes to
_COMMON = frozenset("的一是不了人在中大日本語文字名字模型中文言")
# The 220 syllables that make up more than four fifths of Korean text (counted in documentation and web comments).
# Chinese or Japanese bytes also decode as Korean, but as rare syllables: 2,350 of them can be encoded.
_COMMON_SYLLABLES = frozenset(
    "가각간감값같개객거건것게겠결경계고공과관구국그금기김까나난남내너네녀년노는니다단달당대더던데도동되된됩두드든들디때라람"
    "랑래러런레려력로르른를름리린마만많말매메면명모못무문물미바반발방배버번변보본부분불브비사살상새색생서선설성세소속수스습시"
    "식신실심아안않알았애야양어언없었에여역연열영예오와요용우운원위유으은을음의이인일임입있자작잘장재저적전점정제조좋주준중지"
    "진집짜차참처체최추출치코크클키타터테토트파포표프플피하한할함합해했행현형호화환후히"
)
_FEWEST = 4  # fewer syllables say nothing about how common they are


def text(path: pathlib.Path, warnings: list[str] | None = None) -> str:
    """Reads a file as text.

    Args:
      warnings: receives a sentence if the encoding was not UTF-8.

    Raises:
      ConfigError: the file does not exist, or is neither UTF-8 nor unambiguously CP949. The message names the probable
        encoding and the first line and field that show it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: give a .csv file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder: give the .csv file in it") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path} as UTF-8 .csv: {str(error).splitlines()[0]}") from error
    if data[:2] == b"PK":
        raise ConfigError(f"{path} is a spreadsheet or an archive, not text: save it as 'CSV UTF-8'")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or _wide(data):
        raise ConfigError(f"{path} is not UTF-8 but probably UTF-16: save it as 'CSV UTF-8'")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        korean = _korean(data)
    if korean is not None:
        if warnings is not None:
            warnings.append(f"{path.name} is CP949 (Korean) and is read as such; 'CSV UTF-8' leaves no doubt.")
        return korean
    name, codec = _likely(data)
    raise ConfigError(f"{path} is not UTF-8 but probably {name}{_first(data, codec)}: save it as 'CSV UTF-8'")


def _korean(data: bytes) -> str | None:
    """The text if the bytes are clearly CP949: its letters are Hangul, at least half of them common. Otherwise None."""
    try:
        read = data.decode("cp949")
    except UnicodeDecodeError:
        return None
    syllables = re.findall(f"[{_SYLLABLES}]", read)
    others = len(re.sub("[\x00-\x7f]", "", read))
    common = sum(c in _COMMON_SYLLABLES for c in syllables)
    beyond_doubt = len(syllables) >= max(_FEWEST, 0.8 * others) and 2 * common >= len(syllables)
    return read if beyond_doubt else None


def _first(data: bytes, codec: str) -> str:
    """The first field with non-ASCII letters, decoded in the likely encoding, as in ` (line 3: '모델')`."""
    for number, line in enumerate(data.decode(codec, errors="replace").splitlines(), 1):
        field = next((field for field in re.split("[,;\t]", line) if not field.isascii()), None)
        if field is not None:
            return f" (line {number}: '{''.join(c if c.isprintable() else '�' for c in field.strip())[:40]}')"
    return ""


def _wide(data: bytes) -> bool:
    """Whether every other byte of Latin letters is 0, as in UTF-16 without a byte order mark."""
    return data.count(0) * 4 > len(data)


def _likely(data: bytes) -> tuple[str, str]:
    """The name and codec of the likely encoding, by the plausibility of the letters decoded in each."""
    best, found = 0.5, ("of a Windows code page such as 1252", "cp1252")
    for codec, name, letters in _CODECS:
        try:
            read = data.decode(codec)
        except UnicodeDecodeError:
            continue
        others = re.sub("[\x00-\x7f]", "", read)
        words = "".join(re.findall(f"[{letters}]{{2,}}", read))  # an accent decodes to one odd letter, a name to more
        kana = sum(_OFTEN for c in words if re.match(f"[{_KANA}]", c) or c in _COMMON)
        likeness = (len(words) + (kana if letters != _SYLLABLES else 0)) / max(1, len(others))
        if likeness > best:
            best, found = likeness, (name, codec)
    return found
