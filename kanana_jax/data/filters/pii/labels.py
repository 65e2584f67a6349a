"""Words next to a number that say what it is. Among several, the nearest counts."""

import re
from typing import NamedTuple

WINDOW = 48  # characters before a number in which a label is looked for


class Label(NamedTuple):
    """A word before a number: its name in `_BEFORE`, and the number of characters between the two."""

    name: str
    gap: int


NONE = Label("", WINDOW)

# Name → words. Those of `other` say that a number belongs to a thing, a company or a file.
_BEFORE = {
    "rrn": (
        r"주민 ?(?:등록)? ?(?:번호)?|민증|외국인 ?등록 ?번호|외국인 ?번호|거소 ?신고 ?번호|住民登録番号"
        r"|外国人登録番号|resident registration|alien registration|(?<![a-z])(?:rrn|arc)(?![a-z])"
    ),
    "my_number": r"マイナンバ[ー-]|個人番号|my ?number",
    "passport": r"여권|passport|旅券|パスポ[ー-]ト",
    "card": r"카드|card(?![a-z])|クレジット|カ[ー-]ド|(?<![a-z])(?:visa|cc|amex|master|jcb)(?![a-z])",
    "account": (
        r"계좌|구좌|口座|예금주|통장|account(?! (?:for|of|on|is|was|in) )(?![a-z])|(?<![a-z])(?:acct|a/c"
        r"|iban)(?![a-z])"
    ),
    "bank": (
        r"입금|송금|이체|은행|뱅크|농협|신협|수협|우체국|새마을금고|토스|후원금|振込|振替|銀行|ゆうちょ|信用金庫"
        r"|農協|(?<![가-힣])(?:국민|신한|우리|하나|기업|산업|부산|대구|광주|전북|경남|제주)(?=[ :/]{0,4}\Z)"
        r"|(?<![a-z])bank(?![a-z])"
    ),
    "deposit": r"(?:普通|当座|貯蓄)(?:預金|口座)?|\(普\)|\(当\)",
    "phone": (
        r"전화|연락|휴대|핸드폰|핸폰|(?<!쿠)폰|모바일|문의|상담|팩스|직통|대표 ?번호|문자(?!열)|카톡|안심번호"
        r"|[☎☏✆📞📱]|電話|携帯|連絡先|ファ?ックス|問い?合わ?せ|ホットライン|フリ[ー-]ダイ[ヤア]ル|telephone|phone"
        r"|mobile|hotline|whatsapp|(?<![a-z])(?:tel|fax|cell|call|text|sms|dial|ring|contact|reach|office|ph|h\.?p"
        r"|c\.?p)(?![a-z])|(?<![a-z0-9.(_-])[tmhfpc](?=[.:) ]{1,3}\Z)"
    ),
    "ip": (
        r"아이 ?피(?!타임)|게이트웨이|ゲ[ー-]トウェイ|네임서버|프록시|アドレス|inet|remote_addr|forwarded-for|://"
        r"|(?<![a-z])(?:ip(?:v[46])?|dns|ping|ssh|gateway|proxy|nameserver|address|addr|subnet|cidr)(?![a-z])"
    ),
    "host": (
        r"서버|호스트|접속|접근|로그인|클라이언트|차단|공격|방화벽|대역|サ[ー-]バ|接続|ホスト|アクセス|ログイン"
        r"|(?<![a-z])(?:server|host|client|from|source|src|dst|peer|firewall|login|curl|router|visitor"
        r"|request)(?![a-z])"
    ),
    "version": (
        r"버전|버젼|(?<!게시)판(?![가-힣])|릴리[스즈]|펌웨어|빌드|패치|업데이트|섹션"
        r"|(?<![가-힣])[절항장](?![가-힣])|커널|표준|バ[ー-]ジョン|版|ファ[ー-]ムウェア|リリ[ー-]ス|カ[ー-]ネル"
        r"|ビルド|セクション|[節章項§]|version|release|firmware|kernel|build|driver|patch|update|upgrade|section"
        r"|clause|chapter|appendix|theorem|lemma|corollary|definition|proposition|paragraph|(?<![a-z])(?:ver|rev"
        r"|sec|table|fig|figure|python|sdk|v)(?![a-z])|[=~<>!]=|\^"
    ),
    "other": (
        r"(?:법인|사업자|통신판매|영업|개설|고유|등록|허가|신고|면허|인증|등기) ?(?:등록|신고)? ?번호|사업자|학번"
        r"|사번|운송장|송장|사서함|바코드|좌표|(?:주문|접수|예약|승인|문서|사건|관리|제품|품목|일련|시리얼|모델"
        r"|회원|고객|우편|특허|출원|공고|계약|증권|증명서?|발급|확인|거래|결[제재]|티켓|의안|안건|청구|참조|기기"
        r"|차[대량]|부품|도서|청원|민원|쿠폰|상품|배송|조회|추적|견적|세금계산서) ?(?:번호|코드|no)|일시|일자|날짜"
        r"|기간|금액|(?:注文|伝票|追跡|受付|予約|会員|お?客様|法人|登録|許可|管理|整理|製造|製品|商品|郵便|事件"
        r"|特許|出願|問題|品|型|送り状) ?(?:番号?|コ[ー-]ド|no)|〒|特許第|座標|(?<![a-z])(?:isbn|issn|doi|ean|upc"
        r"|jan|sku|imei|uuid|vin|zip|postal|postcode|tracking|invoice|ticket|serial|patent|id|ein|rma|po(?! box)"
        r"|vat|duns|pmid|arxiv|p/n|s/n)(?![a-z])(?: (?:code|key))?(?: ?(?:no|number|#))?|(?<![a-z])(?:part|model"
        r"|order|ref|reference|booking|reservation|confirmation|transaction|case|docket|registration|company"
        r"|employer|tax|lot|batch|item|product|bill|claim|policy|member|customer|catalog|stock|license|permit|file"
        r"|document|application|employee|student) ?(?:id|code)?\.? ?(?:no(?![a-z])|number|num|nr|#|id|code)"
    ),
}
_LABEL = re.compile("|".join(f"(?P<{name}>{words})" for name, words in _BEFORE.items()))  # in lower case
_AFTER = re.compile(r"^[ )'\"`*>,/]{0,3}(?:\([^()\n]{0,12})?(?:은행|뱅크|예금주|계좌|농협|신협|우체국|銀行|口座)")
_BANK_AFTER = re.compile(
    r"^[ )/,]{0,3}\(?(?:국민|신한|우리|하나|기업|산업|카카오|토스|새마을|[가-힣]{2,6}(?:은행|뱅크)|농협|신협"
    r"|수협|우체국)"
)
_VERSION_AFTER = re.compile(
    r"^[ )'\"`*~,]{0,3}(?:버전|버젼|판(?![가-힣])|절|항(?![가-힣])|장(?![가-힣])|섹션|릴리[스즈]|빌드|패치"
    r"|バ[ー-]ジョン|版|節|項|章|セクション|リリ[ー-]ス|versions?\b|release\b|section\b|build\b|firmware\b"
    r"|or (?:later|newer|above)|and (?:later|newer|above))",
    re.I,
)
_SINCE_AFTER = re.compile(
    r"^[ )'\"`*]{0,2}\.?(?:번|이상|이하|이전|이후|부터|까지|에서|以上|以降|以下|以前|から|まで|未満|[+])"
)


def before(text: str, at: int) -> Label:
    """The nearest label before `text[at]` with no digit between, on the same line or alone on the one before."""
    start, first = at, max(0, at - WINDOW)
    while start > first and (not text[start - 1].isdigit() or text[start - 2 : start - 1] in ("v", "V")):  # "IPv4"
        start -= 1
    base = max(first, start - 1)  # includes the digit before it, which may rule out a label
    window = text[base:at].lower()
    if len(window) != at - base:
        window = text[base:at]  # some letters have two for their lower case
    last = NONE
    for match in _LABEL.finditer(window, start - base):
        if window[match.start() - 1 : match.start()] != "<" or window[match.end() : match.end() + 1] != ">":
            last = Label(match.lastgroup or "", len(window) - match.end())  # else: what was replaced before
    return NONE if text.count("\n", at - last.gap, at) > 1 else last


def names_account(text: str, end: int) -> bool:
    """Returns whether a bank or an account holder is named right after a number."""
    after = text[end : end + 24]
    return bool(_AFTER.match(after) or _BANK_AFTER.match(after))


def names_version(text: str, end: int) -> bool:
    """Returns whether a word such as "version" or "section" directly follows a number."""
    return bool(_VERSION_AFTER.match(text[end : end + 24]))


def counts_from(text: str, end: int) -> bool:
    """Returns whether a number begins or ends a range: "1.2.3.4 or later"."""
    return bool(_SINCE_AFTER.match(text[end : end + 24]))
