"""Language tags, which are written in many ways: `ko`, `kor`, `KO`, `ko-KR`, `kor_Hang`, `ko_KR.UTF-8` are one.

Tables: ISO 639-2 (terminological and bibliographic codes of languages that also have an ISO 639-1 code) and ISO 15924;
members of macrolanguages (ISO 639-3) and retired codes as listed in the IANA registry of RFC 5646.
"""

import re
from collections.abc import Iterable

# Each word is a code followed by its two letters of ISO 639-1.
_ISO_639_2 = """
    aaraa abkab afraf akaak amham araar argan asmas avaav aveae aymay azeaz bakba bambm belbe benbn bihbh
    bisbi bodbo bosbs brebr bulbg catca cescs chach chece chucu chvcv corkw cosco crecr cymcy danda deude
    divdv dzodz ellel engen epoeo estet euseu eweee faofo fasfa fijfj finfi frafr fryfy fulff glagd glega
    glggl glvgv grngn gujgu hatht hauha hebhe herhz hinhi hmoho hrvhr hunhu hyehy iboig idoio iiiii ikuiu
    ileie inaia indid ipkik islis itait javjv jpnja kalkl kankn kasks katka kaukr kazkk khmkm kikki kinrw
    kirky komkv konkg korko kuakj kurku laolo latla lavlv limli linln litlt ltzlb lublu luglg mahmh malml
    marmr mkdmk mlgmg mltmt monmn mrimi msams myamy nauna navnv nblnr ndend ndong nepne nldnl nnonn norno
    nyany ocioc ojioj orior ormom ossos panpa plipi polpl porpt pusps quequ rohrm ronro runrn rusru sagsg
    sansa sinsi slksk slvsl smese smosm snasn sndsd somso sotst spaes sqisq srdsc srpsr sswss sunsu swasw
    swesv tahty tamta tattt telte tgktg tgltl thath tirti tonto tsntn tsots tuktk turtr twitw uigug ukruk
    urdur uzbuz venve vievi volvo wlnwa wolwo xhoxh yidyi yoryo zhaza zhozh zulzu
    albsq armhy baqeu burmy chizh czecs dutnl frefr geoka gerde greel iceis macmk maomi mayms perfa rumro
    slosk tibbo welcy
"""
# Members whose codes data sets use for the whole (Mandarin, standard Arabic, Persian of Iran …), and retired codes.
_OTHERS = """
    cmnzh arbar pesfa prsfa zsmms ekket lvslv alssq azjaz azbaz khkmn npine oryor uznuz pltmg swhsw yddyi pbtps quyqu
    gazom kmrku nobno dtysd guggn knckr fuvff ayray
    nbno iwhe inid jiyi jwjv moro
"""
_ISO_15924 = """
    Adlm Afak Aghb Ahom Arab Aran Armi Armn Avst Bali Bamu Bass Batk Beng Bhks Blis Bopo Brah Brai Bugi Buhd
    Cakm Cans Cari Cham Cher Cirt Copt Cprt Cyrl Cyrs Deva Dsrt Dupl Egyd Egyh Egyp Elba Ethi Geok Geor Glag
    Goth Gran Grek Gujr Guru Hanb Hang Hani Hano Hans Hant Hatr Hebr Hira Hluw Hmng Hrkt Hung Inds Ital Jamo
    Java Jpan Jurc Kali Kana Khar Khmr Khoj Kitl Kits Knda Kore Kpel Kthi Lana Laoo Latf Latg Latn Leke Lepc
    Limb Lina Linb Lisu Loma Lyci Lydi Mahj Mand Mani Marc Maya Mend Merc Mero Mlym Modi Mong Moon Mroo Mtei
    Mult Mymr Narb Nbat Newa Nkgb Nkoo Nshu Ogam Olck Orkh Orya Osge Osma Palm Pauc Perm Phag Phli Phlp Phlv
    Phnx Piqd Plrd Prti Qaaa Qabx Rjng Roro Runr Samr Sara Sarb Saur Sgnw Shaw Shrd Sidd Sind Sinh Sora Sund
    Sylo Syrc Syre Syrj Syrn Tagb Takr Tale Talu Taml Tang Tavt Telu Teng Tfng Tglg Thaa Thai Tibt Tirh Ugar
    Vaii Visp Wara Wole Xpeo Xsux Yiii Zinh Zmth Zsye Zsym Zxxx Zyyy Zzzz
"""
_SCRIPTS = frozenset(_ISO_15924.split())
_NONE = ("und", "mul", "mis", "zxx")  # undetermined, several, uncoded, no linguistic content
_SHORT = {word[:-2]: word[-2:] for word in (_ISO_639_2 + _OTHERS).split()}
_TWO_LETTERS = frozenset(_SHORT.values())


def tag(text: str) -> str:
    """The language that a tag names: two letters of ISO 639-1, or else three of ISO 639-3; empty if it names none.

    A word that is not a tag (`default`) stays as it is.
    """
    text = text.strip()
    primary = re.split("[-_.@]", text, maxsplit=1)[0].casefold()
    if not (2 <= len(primary) <= 3 and primary.isascii() and primary.isalpha()):
        return text
    return "" if primary in _NONE else _SHORT.get(primary, primary)


def is_tag(text: str) -> bool:
    """Returns whether a name can only be a language's: `ko`, `kor_Hang`, `ko-KR`, and not `ko_web`."""
    primary, *rest = re.split("[-_]", text)
    if not (2 <= len(primary) <= 3 and primary.isascii() and primary.isalpha()):
        return False
    if rest and rest[0].capitalize() in _SCRIPTS:
        rest = rest[1:]
    return not rest or (len(rest) == 1 and re.fullmatch("[A-Za-z]{2}|[0-9]{3}", rest[0]) is not None)


def is_known(text: str) -> bool:
    """Returns whether a name is a tag whose language is one of ISO 639-1: `ko`, `jpn`, `pt-BR`, and not `doc`."""
    return is_tag(text) and tag(text) in _TWO_LETTERS


def key_of(lang: str, keys: Iterable[str]) -> str | None:
    """The key that names a language, however it is written."""
    keys = list(keys)
    if lang in keys:
        return lang
    return next((key for key in keys if is_tag(key) and tag(key) == tag(lang)), None) if lang else None
