"""Korean particles, whose form depends on the preceding sound, and Korean number formats.

Templates write a particle in its form after a consonant, in angle brackets: `한빛시<은> 작다` becomes `한빛시는 작다`.
"""

import re

# form after a consonant → form after a vowel
PARTICLES = {
    "은": "는",
    "이": "가",
    "을": "를",
    "과": "와",
    "으로": "로",
    "이다": "다",
    "이었다": "였다",
    "이라는": "라는",
    "이며": "며",
    "이고": "고",
    "이나": "나",
    "아": "야",
    "이에요": "예요",
    "이라고": "라고",
    "이란": "란",
    "입니다": "입니다",
}
_MARK = re.compile("<(" + "|".join(sorted(PARTICLES, key=len, reverse=True)) + ")>")
# The final consonant of a digit's name: none, ㄹ ("l") or another ("c"). A trailing 0 is read 영, 십, 백, 천, 만 or 억.
_DIGITS = {"0": "c", "1": "l", "2": "", "3": "c", "4": "", "5": "", "6": "c", "7": "l", "8": "l", "9": ""}
_LATIN_FINALS = "bcdgkmnpt"
_NOT_SOUND = re.compile(r"\([^()]*\)$|(?<![\s'\"’”』」)\]])[\s'\"’”』」)\]]+$")


def final_sound(word: str) -> str:
    """The class of a word's final consonant: `''` (none), `'l'` (ㄹ) or `'c'` (any other).

    Hangul is classified by its syllable, digits by their Sino-Korean names, Latin letters by their sound (b c d g k m n
    p t and l close a syllable). A gloss in brackets and closing quotes are skipped.
    """
    while True:
        shorter = _NOT_SOUND.sub("", word)
        if shorter == word or not shorter:
            break
        word = shorter
    if not word:
        return ""
    last = word[-1]
    if "가" <= last <= "힣":
        index = (ord(last) - 0xAC00) % 28
        return "" if index == 0 else "l" if index == 8 else "c"
    if last in _DIGITS:
        return _DIGITS[last]
    lower = last.lower()
    return "l" if lower == "l" else "c" if lower in _LATIN_FINALS else ""


def particles(text: str) -> str:
    """Replaces every `<particle>` by the right form."""
    parts, position = [], 0
    for match in _MARK.finditer(text):
        parts.append(text[position : match.start()])
        before = "".join(parts)[-40:]
        sound, form = final_sound(before), match.group(1)
        consonant = sound == "c" or (sound == "l" and form != "으로")
        parts.append(form if consonant else PARTICLES[form])
        position = match.end()
    return "".join(parts) + text[position:]


def won(amount: int) -> str:
    """Formats an amount of money: 35만 2000원, 1200원."""
    man, rest = divmod(amount, 10_000)
    return " ".join(([f"{man:,}만"] if man else []) + ([f"{rest}"] if rest or not man else [])) + "원"


def people(count: int) -> str:
    """Formats a number of people: 3만 4천여 명, 812명."""
    if count < 10_000:
        return f"{count}명"
    man, rest = divmod(count, 10_000)
    return f"{man}만 {rest // 1000}천여 명" if rest >= 1000 else f"{man}만여 명"
