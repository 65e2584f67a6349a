"""Country and flag templates: `{{KOR}}`, `{{flag|JPN}}` or `{{대한민국}}` show a name in the language of the page."""

import re
from collections.abc import Callable, Mapping, Sequence

from kanana_jax.data.extract.markup import words

LANGUAGES = ("en", "ko", "ja")
# ISO 3166 code (or the code of a team or a former state), and the name in English, Korean and Japanese.
_TABLE = """
    AFG/Afghanistan/아프가니스탄/アフガニスタン; ALB/Albania/알바니아/アルバニア; DZA/Algeria/알제리/アルジェリア;
    AND/Andorra/안도라/アンドラ; AGO/Angola/앙골라/アンゴラ;
    ATG/Antigua and Barbuda/앤티가 바부다/アンティグア・バーブーダ; ARG/Argentina/아르헨티나/アルゼンチン;
    ARM/Armenia/아르메니아/アルメニア; ABW/Aruba/아루바/アルバ; AUS/Australia/오스트레일리아/オーストラリア;
    AUT/Austria/오스트리아/オーストリア; AZE/Azerbaijan/아제르바이잔/アゼルバイジャン; BHS/Bahamas/바하마/バハマ;
    BHR/Bahrain/바레인/バーレーン; BGD/Bangladesh/방글라데시/バングラデシュ; BRB/Barbados/바베이도스/バルバドス;
    BLR/Belarus/벨라루스/ベラルーシ; BEL/Belgium/벨기에/ベルギー; BLZ/Belize/벨리즈/ベリーズ;
    BEN/Benin/베냉/ベナン; BMU/Bermuda/버뮤다/バミューダ; BTN/Bhutan/부탄/ブータン; BOL/Bolivia/볼리비아/ボリビア;
    BIH/Bosnia and Herzegovina/보스니아 헤르체고비나/ボスニア・ヘルツェゴビナ; BWA/Botswana/보츠와나/ボツワナ;
    BRA/Brazil/브라질/ブラジル; BRN/Brunei/브루나이/ブルネイ; BGR/Bulgaria/불가리아/ブルガリア;
    BFA/Burkina Faso/부르키나파소/ブルキナファソ; BDI/Burundi/부룬디/ブルンジ; KHM/Cambodia/캄보디아/カンボジア;
    CMR/Cameroon/카메룬/カメルーン; CAN/Canada/캐나다/カナダ; CPV/Cape Verde/카보베르데/カーボベルデ;
    CYM/Cayman Islands/케이맨 제도/ケイマン諸島;
    CAF/Central African Republic/중앙아프리카 공화국/中央アフリカ共和国; TCD/Chad/차드/チャド; CHL/Chile/칠레/チリ;
    CHN/China/중국/中国; COL/Colombia/콜롬비아/コロンビア; COM/Comoros/코모로/コモロ;
    COG/Republic of the Congo/콩고 공화국/コンゴ共和国;
    COD/Democratic Republic of the Congo/콩고 민주 공화국/コンゴ民主共和国; COK/Cook Islands/쿡 제도/クック諸島;
    CRI/Costa Rica/코스타리카/コスタリカ; CIV/Ivory Coast/코트디부아르/コートジボワール;
    HRV/Croatia/크로아티아/クロアチア; CUB/Cuba/쿠바/キューバ; CUW/Curaçao/퀴라소/キュラソー;
    CYP/Cyprus/키프로스/キプロス; CZE/Czech Republic/체코/チェコ; DNK/Denmark/덴마크/デンマーク;
    DJI/Djibouti/지부티/ジブチ; DMA/Dominica/도미니카 연방/ドミニカ国;
    DOM/Dominican Republic/도미니카 공화국/ドミニカ共和国; ECU/Ecuador/에콰도르/エクアドル;
    EGY/Egypt/이집트/エジプト; SLV/El Salvador/엘살바도르/エルサルバドル;
    GNQ/Equatorial Guinea/적도 기니/赤道ギニア; ERI/Eritrea/에리트레아/エリトリア;
    EST/Estonia/에스토니아/エストニア; SWZ/Eswatini/에스와티니/エスワティニ; ETH/Ethiopia/에티오피아/エチオピア;
    FRO/Faroe Islands/페로 제도/フェロー諸島; FJI/Fiji/피지/フィジー; FIN/Finland/핀란드/フィンランド;
    FRA/France/프랑스/フランス; GAB/Gabon/가봉/ガボン; GMB/The Gambia/감비아/ガンビア;
    GEO/Georgia/조지아/ジョージア; DEU/Germany/독일/ドイツ; GHA/Ghana/가나/ガーナ;
    GIB/Gibraltar/지브롤터/ジブラルタル; GRC/Greece/그리스/ギリシャ; GRL/Greenland/그린란드/グリーンランド;
    GRD/Grenada/그레나다/グレナダ; GLP/Guadeloupe/과들루프/グアドループ; GUM/Guam/괌/グアム;
    GTM/Guatemala/과테말라/グアテマラ; GIN/Guinea/기니/ギニア; GNB/Guinea-Bissau/기니비사우/ギニアビサウ;
    GUY/Guyana/가이아나/ガイアナ; HTI/Haiti/아이티/ハイチ; HND/Honduras/온두라스/ホンジュラス;
    HKG/Hong Kong/홍콩/香港; HUN/Hungary/헝가리/ハンガリー; ISL/Iceland/아이슬란드/アイスランド;
    IND/India/인도/インド; IDN/Indonesia/인도네시아/インドネシア; IRN/Iran/이란/イラン; IRQ/Iraq/이라크/イラク;
    IRL/Ireland/아일랜드/アイルランド; IMN/Isle of Man/맨섬/マン島; ISR/Israel/이스라엘/イスラエル;
    ITA/Italy/이탈리아/イタリア; JAM/Jamaica/자메이카/ジャマイカ; JPN/Japan/일본/日本; JOR/Jordan/요르단/ヨルダン;
    KAZ/Kazakhstan/카자흐스탄/カザフスタン; KEN/Kenya/케냐/ケニア; KIR/Kiribati/키리바시/キリバス;
    PRK/North Korea/조선민주주의인민공화국/北朝鮮; KOR/South Korea/대한민국/韓国; XKX/Kosovo/코소보/コソボ;
    KWT/Kuwait/쿠웨이트/クウェート; KGZ/Kyrgyzstan/키르기스스탄/キルギス; LAO/Laos/라오스/ラオス;
    LVA/Latvia/라트비아/ラトビア; LBN/Lebanon/레바논/レバノン; LSO/Lesotho/레소토/レソト;
    LBR/Liberia/라이베리아/リベリア; LBY/Libya/리비아/リビア; LIE/Liechtenstein/리히텐슈타인/リヒテンシュタイン;
    LTU/Lithuania/리투아니아/リトアニア; LUX/Luxembourg/룩셈부르크/ルクセンブルク; MAC/Macau/마카오/マカオ;
    MDG/Madagascar/마다가스카르/マダガスカル; MWI/Malawi/말라위/マラウイ; MYS/Malaysia/말레이시아/マレーシア;
    MDV/Maldives/몰디브/モルディブ; MLI/Mali/말리/マリ; MLT/Malta/몰타/マルタ;
    MHL/Marshall Islands/마셜 제도/マーシャル諸島; MRT/Mauritania/모리타니/モーリタニア;
    MUS/Mauritius/모리셔스/モーリシャス; MEX/Mexico/멕시코/メキシコ;
    FSM/Micronesia/미크로네시아 연방/ミクロネシア連邦; MDA/Moldova/몰도바/モルドバ; MCO/Monaco/모나코/モナコ;
    MNG/Mongolia/몽골/モンゴル; MNE/Montenegro/몬테네그로/モンテネグロ; MAR/Morocco/모로코/モロッコ;
    MOZ/Mozambique/모잠비크/モザンビーク; MMR/Myanmar/미얀마/ミャンマー; NAM/Namibia/나미비아/ナミビア;
    NRU/Nauru/나우루/ナウル; NPL/Nepal/네팔/ネパール; NLD/Netherlands/네덜란드/オランダ;
    NCL/New Caledonia/누벨칼레도니/ニューカレドニア; NZL/New Zealand/뉴질랜드/ニュージーランド;
    NIC/Nicaragua/니카라과/ニカラグア; NER/Niger/니제르/ニジェール; NGA/Nigeria/나이지리아/ナイジェリア;
    NIU/Niue/니우에/ニウエ; MKD/North Macedonia/북마케도니아/北マケドニア;
    MNP/Northern Mariana Islands/북마리아나 제도/北マリアナ諸島; NOR/Norway/노르웨이/ノルウェー;
    OMN/Oman/오만/オマーン; PAK/Pakistan/파키스탄/パキスタン; PLW/Palau/팔라우/パラオ;
    PSE/Palestine/팔레스타인/パレスチナ; PAN/Panama/파나마/パナマ;
    PNG/Papua New Guinea/파푸아뉴기니/パプアニューギニア; PRY/Paraguay/파라과이/パラグアイ; PER/Peru/페루/ペルー;
    PHL/Philippines/필리핀/フィリピン; POL/Poland/폴란드/ポーランド; PRT/Portugal/포르투갈/ポルトガル;
    PRI/Puerto Rico/푸에르토리코/プエルトリコ; QAT/Qatar/카타르/カタール; ROU/Romania/루마니아/ルーマニア;
    RUS/Russia/러시아/ロシア; RWA/Rwanda/르완다/ルワンダ;
    KNA/Saint Kitts and Nevis/세인트키츠 네비스/セントクリストファー・ネイビス;
    LCA/Saint Lucia/세인트루시아/セントルシア;
    VCT/Saint Vincent and the Grenadines/세인트빈센트 그레나딘/セントビンセント・グレナディーン;
    WSM/Samoa/사모아/サモア; SMR/San Marino/산마리노/サンマリノ;
    STP/São Tomé and Príncipe/상투메 프린시페/サントメ・プリンシペ; SAU/Saudi Arabia/사우디아라비아/サウジアラビア;
    SEN/Senegal/세네갈/セネガル; SRB/Serbia/세르비아/セルビア; SYC/Seychelles/세이셸/セーシェル;
    SLE/Sierra Leone/시에라리온/シエラレオネ; SGP/Singapore/싱가포르/シンガポール;
    SVK/Slovakia/슬로바키아/スロバキア; SVN/Slovenia/슬로베니아/スロベニア;
    SLB/Solomon Islands/솔로몬 제도/ソロモン諸島; SOM/Somalia/소말리아/ソマリア;
    ZAF/South Africa/남아프리카 공화국/南アフリカ共和国; SSD/South Sudan/남수단/南スーダン;
    ESP/Spain/스페인/スペイン; LKA/Sri Lanka/스리랑카/スリランカ; SDN/Sudan/수단/スーダン;
    SUR/Suriname/수리남/スリナム; SWE/Sweden/스웨덴/スウェーデン; CHE/Switzerland/스위스/スイス;
    SYR/Syria/시리아/シリア; TWN/Taiwan/중화민국/中華民国; TJK/Tajikistan/타지키스탄/タジキスタン;
    TZA/Tanzania/탄자니아/タンザニア; THA/Thailand/태국/タイ; TLS/East Timor/동티모르/東ティモール;
    TGO/Togo/토고/トーゴ; TON/Tonga/통가/トンガ; TTO/Trinidad and Tobago/트리니다드 토바고/トリニダード・トバゴ;
    TUN/Tunisia/튀니지/チュニジア; TUR/Turkey/튀르키예/トルコ; TKM/Turkmenistan/투르크메니스탄/トルクメニスタン;
    TUV/Tuvalu/투발루/ツバル; UGA/Uganda/우간다/ウガンダ; UKR/Ukraine/우크라이나/ウクライナ;
    ARE/United Arab Emirates/아랍에미리트/アラブ首長国連邦; GBR/United Kingdom/영국/イギリス;
    USA/United States/미국/アメリカ合衆国; URY/Uruguay/우루과이/ウルグアイ;
    UZB/Uzbekistan/우즈베키스탄/ウズベキスタン; VUT/Vanuatu/바누아투/バヌアツ;
    VAT/Vatican City/바티칸 시국/バチカン; VEN/Venezuela/베네수엘라/ベネズエラ; VNM/Vietnam/베트남/ベトナム;
    YEM/Yemen/예멘/イエメン; ZMB/Zambia/잠비아/ザンビア; ZWE/Zimbabwe/짐바브웨/ジンバブエ;
    ENG/England/잉글랜드/イングランド; SCO/Scotland/스코틀랜드/スコットランド; WAL/Wales/웨일스/ウェールズ;
    NIR/Northern Ireland/북아일랜드/北アイルランド; TPE/Chinese Taipei/중화 타이베이/チャイニーズタイペイ;
    SUN/Soviet Union/소련/ソビエト連邦; GDR/East Germany/동독/東ドイツ; FRG/West Germany/서독/西ドイツ;
    TCH/Czechoslovakia/체코슬로바키아/チェコスロバキア; YUG/Yugoslavia/유고슬라비아/ユーゴスラビア;
    SCG/Serbia and Montenegro/세르비아 몬테네그로/セルビア・モンテネグロ; EUN/Unified Team/독립국가연합/EUN;
    EU/European Union/유럽 연합/欧州連合; UN/United Nations/유엔/国際連合
"""
_NAMES = {code: names for code, *names in (row.strip().split("/") for row in _TABLE.split(";"))}
# Other codes in use: those of the Olympic committees and of FIFA, and abbreviations.
_ALIASES = {
    pair[:-4]: pair[-3:]
    for pair in words(
        "GER=DEU NED=NLD HOL=NLD SUI=CHE DEN=DNK GRE=GRC POR=PRT CRO=HRV SLO=SVN BUL=BGR LAT=LVA RSA=ZAF CHI=CHL "
        "URU=URY PAR=PRY MAS=MYS INA=IDN PHI=PHL VIE=VNM IRI=IRN KSA=SAU UAE=ARE SRI=LKA NGR=NGA NIG=NER ALG=DZA "
        "ANG=AGO ZIM=ZWE ZAM=ZMB TAN=TZA CRC=CRI GUA=GTM HON=HND ESA=SLV HAI=HTI PUR=PRI KUW=KWT OMA=OMN LIB=LBN "
        "MGL=MNG MYA=MMR NEP=NPL BAN=BGD CAM=KHM URS=SUN USSR=SUN PLE=PSE KOS=XKX KVX=XKX ROK=KOR DPRK=PRK "
        "PRC=CHN ROC=TWN UK=GBR US=USA BRU=BRN BHU=BTN MAD=MDG MAW=MWI MTN=MRT MRI=MUS SUD=SDN TOG=TGO GAM=GMB "
        "GUI=GIN CHA=TCD CGO=COG BUR=BFA BOT=BWA LES=LSO LBA=LBY SEY=SYC FIJ=FJI SAM=WSM SOL=SLB TGA=TON VAN=VUT "
        "BAH=BHS BAR=BRB BER=BMU BIZ=BLZ GRN=GRD NCA=NIC ARU=ABW CAY=CYM SKN=KNA VIN=VCT ROM=ROU MON=MCO"
    )
}
# Templates that show a flag with the country's name, and templates that show only the flag.
_SHOWN = words(
    "flag flagu flagcountry flag+link flagg flagioc flagpoc flagcgf flaglink flagteam fb fbu fb-rt fbw nft mnft ih bk "
    "rut ru cr hb vb 국기 국기2 국기나라 나라 국가 국기국가 축구 축구국가대표팀 여자축구 야구 농구 배구 핸드볼 "
    "국기_나라 올림픽_국가 国旗 国旗名 サッカー代表 flaglist fbicon-name country 나라링크"
)
_ALONE = words(
    "flagicon flagdeco flag_icon 국기그림 국기아이콘 국기_그림 fbicon flagicon_image noflag flagcountry_icon 旗 "
    "국기그림2 flagicon2"
)
# Number of characters from which a page's language is determined.
SAMPLE = 3000
_HANGUL, _KANA, _LETTERS = (re.compile(f"[{span}]") for span in ("\uac00-\ud7a3", "\u3040-\u30ff", "A-Za-z"))
_OTHER_NAMES = words(
    "북한 남한 한국 대만 타이완 중화인민공화국 터키 호주 미합중국 조선 오스트리아-헝가리_제국 台湾 "
    "大韓民国 朝鮮民主主義人民共和国 中華人民共和国"
)
_NAMED = {name: name for names in _NAMES.values() for name in names[1:]} | {
    name: name for name in (other.replace("_", " ") for other in _OTHER_NAMES)
}


def name_of(code: str, language: str) -> str | None:
    """The name for a country code; None if it is not one."""
    names = _NAMES.get(_ALIASES.get(code, code))
    return names[LANGUAGES.index(language)] if names is not None else None


def render(
    head: str, name: str, at: Sequence[str], named: Mapping[str, str], language: Callable[[], str]
) -> str | None:
    """The text of a country template; None for other templates.

    Args:
      head: the template's name as written; `name` is the same in lower case.
      at, named: its positional and named arguments.
      language: returns the page's language, which is determined only if needed.
    """
    if name in _ALONE:
        return ""
    if name in _SHOWN:
        shown = named.get("name") or named.get("이름") or named.get("text") or ""
        return shown or (_country(at[0], language()) if at else "")
    if name in ("flagathlete", "flagioc2athlete", "flagiocathlete", "flagmedalist", "flagiocmedalist", "국기선수"):
        return f"{at[0]} ({_country(at[1], language())})" if len(at) > 1 else (at or ("",))[0]
    if head in _NAMES or head in _ALIASES:
        return name_of(head, language())
    return _NAMED.get(head)


def _country(text: str, language: str) -> str:
    return name_of(text.upper(), language) or text


def language_of(text: str) -> str:
    """The language of a page: one of those in which country names are known."""
    text = text[:SAMPLE]
    hangul, kana, letters = (len(pattern.findall(text)) for pattern in (_HANGUL, _KANA, _LETTERS))
    if max(hangul, kana) * 20 < letters:
        return "en"
    return "ko" if hangul >= kana and hangul else "ja" if kana else "en"
