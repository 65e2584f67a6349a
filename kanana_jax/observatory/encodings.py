"""The encoding of a .csv file: UTF-8 is read, of any other the likely name is told."""

import pathlib
import re

from kanana_jax.errors import ConfigError

# Codecs by which offices of these countries still save, and the letters that make a text plausible in each.
_SYLLABLES, _KANA, _HAN = "\uac00-\ud7a3", "\u3041-\u3096\u30a1-\u30fa\u30fc", "\u4e00-\u9fff"
_CODECS = (
    ("cp949", "CP949 (Korean)", _SYLLABLES),
    ("cp932", "Shift_JIS (Japanese)", _KANA + _HAN),
    ("euc_jp", "EUC-JP (Japanese)", _KANA + _HAN),
    ("gb18030", "GB18030 (Chinese)", _HAN),
    ("big5", "Big5 (Chinese)", _HAN),
)
_OFTEN = 3.0  # weight of kana and of the commonest hanja: byte pairs of another codec rarely hit them
_COMMON = frozenset("的一是不了人在中大日本語文字名字模型中文言")


def text(path: pathlib.Path) -> str:
    """The file as text.

    Raises:
      ConfigError: no file, or one that is not UTF-8; the sentence says which encoding it probably is.
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
        raise ConfigError(f"{path} is a spreadsheet or an archive, no text: save it as 'CSV UTF-8'")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or _wide(data):
        raise ConfigError(f"{path} is not UTF-8 but probably UTF-16: save it as 'CSV UTF-8'")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 but probably {_likely(data)}: save it as 'CSV UTF-8'") from None


def _wide(data: bytes) -> bool:
    """Whether every other byte of Latin letters is 0, as in UTF-16 without its mark."""
    return data.count(0) * 4 > len(data)


def _likely(data: bytes) -> str:
    """The name of the likely encoding, by the letters that the bytes make in each."""
    best, found = 0.5, "of a Windows code page such as 1252"
    for codec, name, letters in _CODECS:
        try:
            read = data.decode(codec)
        except UnicodeDecodeError:
            continue
        others = re.sub("[\x00-\x7f]", "", read)
        words = "".join(re.findall(f"[{letters}]{{2,}}", read))  # an accent makes one strange letter, a name several
        kana = sum(_OFTEN for c in words if re.match(f"[{_KANA}]", c) or c in _COMMON)
        likeness = (len(words) + (kana if letters != _SYLLABLES else 0)) / max(1, len(others))
        if likeness > best:
            best, found = likeness, name
    return found
