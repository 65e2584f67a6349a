"""Patterns of the words that state an answer, in Korean, Japanese and English, for the plain text of `answers`."""

import re

_OPEN = r"(?:[\s,:=>→⇒*_\"'“”‘’(\[{<「『【〈《⟦–—]|-(?!\d)|~~?|\.\.+"
_CLOSE = r"[\"'”’」』)\]】〉》>⟧*.}]*+\s*+"
_SHUT = r"[\"'”’」』)\]】⟧*]*+\s*+"
_UNIT = r"(?:번|개|원|명|마리|점|%|円|個|人|点|[ck]?m|k?g)?\s*+"

# Words between a cue and its value.
_WORDS = (
    r"(?:보기|선택지|선지)\s*(?:중|가운데)(?:에서)?(?:는|도)?|(?:다음|아래)(?:과|와) 같(?:습니다|다|아요)\.?|"
    r"(?:첫|두|세|네|다섯|\d)\s*번째(?:\s*(?:보기|선택지|선지|항목))?인?|(?:보기|선택지)(?:의|인)|ずばり|"
    r"바로|아마도?|결국|역시|곧|명백히|확실히|당연히|보기(?!는)|선택지|선지|번호|약|총|모두|시속|오전|오후|고르면|고른다면|찾으면|말하면|"
    r"やはり|おそらく|(?:次|以下)の(?:通り|とおり)(?:です|である)?。?|選択肢の?|記号の?|番号の?|約|、|"
    r"(?:clearly|definitely|therefore|thus|simply|indeed|most likely|likely|probably|just|the|letter|option|choice|"
    r"number|about|approximately|equal to|exactly|[a-z]\s*=)(?![A-Za-z])"
)
FILLER = rf"{_OPEN}|{_WORDS})*"
FILLED = re.compile(FILLER)

# Cues before a value. '오답', '대답', '不正解' are other words; 'the answer cannot be', 'could be' other statements.
_ANSWER_KO = r"(?:정답|(?<![가-힣])(?:최종\s*|모범\s*)?(?:해답|답안|답변|답))"
_ANSWER_KO += r"(?:\s*(?:선택지|보기|선지|번호|항목|알파벳|기호))?(?:에 해당하는 (?:것|보기|선택지))?"
_ANSWER_JA = (
    r"(?:(?<!不)正解|正答|(?<![一-龥])答え?|解答|回答|(?<=終)答え)(?:の(?:選択肢|番号|記号))?(?:となる(?:の|もの))?"
)
_ANSWER_EN = r"\b(?:answer|(?:correct|best|right|final) (?:choice|option|letter|one))"
_OTHER_VERB = r"(?:not|cannot|never|could|might|may|can|isn't|can't|couldn't)\b"
_IS = r"(?:is(?!n't)|are|be|=|:|>|→|-|–|—)"
CUE = re.compile(
    rf"{_ANSWER_KO}\s*(?:은|는|이|가|으로는|으로|로는|로|을|를|란|이란)?"
    rf"|{_ANSWER_JA}\s*(?:は|が|として)?"
    rf"|(?i:{_ANSWER_EN}(?:[ ](?!{_OTHER_VERB})[a-z]+){{0,6}}?\s*\**\s*{_IS})"
    r"|(?i:\b(?:I|we)(?:'d|'ll| would| will| shall| must)? (?:choose|select|pick|go with|answer|say))"
    r"|(?:아니|아뇨|다시 (?:보니|생각해\s*보니|계산하면|계산해\s*보니))[,.…\s]+"
    r"|(?i:\b(?:wait|actually|no),? (?:it's|it is|that's))"
    r"|⟦|####"
)
WEAK_CUE = re.compile(
    r"(?:옳은|올바른|맞는|적절한|알맞은|틀린|(?:옳지|맞지|적절하지) 않은)\s*(?:것|보기|설명|선택지)(?:은|는|:)"
    r"|(?:正しい|適切な|誤っている)(?:もの|選択肢)は"
    r"|(?i:\b(?:answer|it) (?:could|might|may) be|\banswer (?:was|would have been))"
    r"|(?:따라서|그러므로|그래서|결론적으로|したがって|よって|ゆえに)"
    r"|(?i:\b(?:therefore|thus|hence|so|it's|it is|leaves)\b)"
)

# Cues after a value: 'B가 정답', 'Bが正解', 'B is the answer'; weak: 'B가 옳다', which may describe any of the choices.
_IS_NOT = r"(?!\s*+(?:이|은|으로|일|과|에서|가|도|인)?\s*+"
_IS_NOT += r"(?:아니|아닌|아닙|아님|될 수 없|수 없|거리|지|되려면|되기|이?려면|이라면|었다면)"
_IS_NOT += r"|(?:으로|이라고)?\s*(?:착각|오해|잘못|혼동|고르기 쉽|생각하기 쉽))"
BEHIND = re.compile(
    rf"{_SHUT}(?:の選択肢)?{_UNIT}(?:이|가|を|が|은|는|를|을|로|으로|に)?\s*+"
    rf"(?:(?:바로\s*)?(?:정답|(?<![가-힣])답){_IS_NOT}|(?:선택|고르|고릅|고른|골라|택)(?!지)(?!하지 않|하면 안)"
    r"|正解(?!では|じゃ|でな|に見|かも)|正答(?!では)|答え(?!では|られ)|選(?:び|ぶ|択)(?!ま?せ)"
    r"|\s?is (?:therefore |thus |clearly )?the (?:correct|right|best|final)?\s?(?:answer|option|choice))"
)
BEHIND_WEAK = re.compile(
    rf"{_SHUT}(?:번)?\s*+(?:이|가|が)\s*+(?:가장\s*|最も|もっとも)?"
    r"(?:맞(?!지)|옳(?!지)|올바(?!르지)|적절(?!하지)|正し(?!くな)|適切(?!で(?:は|な)))"
    rf"|{_SHUT}is (?:the )?(?:correct|right)\b"
)

# Words after a value that negate it.
_HARDLY = r"(?:라고|이라고) (?:보기|하기|할 수)\w*\s*(?:어렵|힘들|없)"
NEGATED = re.compile(
    rf"{_CLOSE}(?:번|개|원|명|個|人|円|番)?\s*+"
    rf"(?:(?:이|가|은|는|도|일)?\s*+(?:리가\s*+)?(?:{_HARDLY}|아니|아닌|아닙|아님|없|될 수 없|수 없|틀)"
    r"|(?:では|じゃ|でも|とは)(?:な|あり|言え))"
)
_MAYBE_KO = r"일?\s?수(?:도)? 있|될 수(?:도)? 있|까|인가|인지|고 (?:생각|오해|착각|볼 수도|여)|"
_MAYBE_KO += "였을|었을|되었을|됐을|인 줄|줄|처럼"
HEDGED = re.compile(
    rf"{_CLOSE}(?:(?:번)?\s*+(?:이|가|일|라|이라)?\s*+(?:{_MAYBE_KO})"
    r"|(?:番)?(?:かもしれ|でしょうか|だろうか|に見え|と思|だった(?:だろう|でしょう|はず)|だと思)"
    r"|[^\n.!。]{0,8}\?)"
)
AND = re.compile(
    rf"{_SHUT}(?:번)?\s*"
    r"(?:,|/|·|&|와|과|도|및|그리고|또는|혹은|이나|나|n?or\b|and\b|でも|と|も|または|や|、|か)\s*[\"'“‘「『(\[⟦]*"
)
TOPIC = re.compile(rf"{_SHUT}(?:번)?\s*(?:은|는|は|is\b|was\b)")

# Words between a denied value and the right one.
CORRECTED = re.compile(
    r"[^\n.。]{0,12}?(?:아니라|아니고|아닌|아니며|아니므로|(?:아닙니다|아니다|아니에요)[.,]|"
    rf"(?:で(?:は|も)?|じゃ)?なく(?:て)?|ではありません。|ではない。)[,、]?{FILLER}"
)
DENIED = re.compile(
    rf"(?i:\banswer(?: [a-z]+){{0,4}}? (?:is not|isn't|are not|is neither))(?: +(?:option|choice))?\s*{_OPEN})*"
)
NOT_BUT = re.compile(
    rf"[^\n.]{{0,30}}?\b(?:but(?: rather| it is| it's| is)?|rather|instead|it's|it is)(?![a-z])[,:]?{FILLER}"
)
CONDITION = re.compile(r"(?:^|[\s\"(])(?:만약|만일|가령|설령|If|if|もし|仮に)(?![가-힣A-Za-z])")

# Particles that may directly follow the letter of a choice; otherwise it begins a word ('B형', 'A型', 'A common …').
PARTICLES = (
    "뿐|입니|이다|이에|이예|예요|에요|이며|이고|이라|이므|으므|이지만|이었|이야|이죠|이네|이지|이 |이\n|이겠|이군|"
    "이거든|이랍|라고|라는|라|임|번|가|는|은|를|을|로|으로|와|과|도|만|인|일|였|야|죠|네|군요|거든|랍니|겠|요|지만|"
    "지요|다|에 |에서|혹은|또는|및|밖에"
)
KANA = "です|だ|で|が|は|を|と|の|に|な|も|か|や|または"
AFTER_A = "because|since|as|for|which|is|from|rather|not|with|and|n?or|in|but|that|where"
