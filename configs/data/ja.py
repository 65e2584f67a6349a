"""The Japanese web filter: the English rules with thresholds fitted to characters, and Swallow's own rules.

    kanana filter --config configs/data/ja.py --input 'web/*.jsonl.gz' --lang ja --output filtered

Words are characters here, as in Swallow's corpus (arXiv:2404.17733, §3), so that no morphology is needed; thresholds
and their provenance are in `ja_thresholds.json`. Rules that count whole words are left out. Swallow: at least
400 letters, hiragana ≥ 0.2, katakana ≤ 0.5, ellipses ≤ 0.2 a sentence. Letters and ellipses are fitted, too
(`kanana thresholds --config configs/data/ja.py:unfitted …`); hiragana is 0.03, below documentation that is half code.
Swallow's bounds on the length of sentences are left out, since they drop a third of Aozora's works, poems and Sōseki
among them. Noun lists are distinguished from sentences by the share of hiragana among kana and kanji.
"""

import pathlib

from kanana_jax.configs.data import en
from ml_collections import ConfigDict

THRESHOLDS = pathlib.Path(__file__).with_name("ja_thresholds.json")
LEFT_OUT = ("duplicate_paragraphs", "duplicate_paragraph_characters", "short_lines", "stop_words", "language", "words",
            "mean_word_length", "ellipses_per_word", *en.C4)  # fmt: skip
# Function characters: any one or two sentences contain two different ones (the single characters of FineWeb2's list).
STOP = tuple("のにをはたてがとでし")
SPAM = (
    "カジノ", "オンラインカジノ", "ネットカジノ", "スロット", "バカラ", "入金不要ボーナス", "フリースピン",
    "出会い系", "出会い系サイト", "セフレ", "アダルト", "アダルト動画", "無修正", "激安", "最安値", "格安",
    "送料無料", "即日発送", "ブランドコピー", "スーパーコピー", "コピー品", "偽物", "即日融資", "審査なし", "闇金",
    "現金化", "精力剤", "バイアグラ", "副業", "高収入", "高収入バイト", "不労所得", "必勝法", "絶対儲かる", "稼げる",
    "無料登録", "期間限定", "今すぐ", "お申し込みはこちら", "クリック", "相互リンク", "ランキング参加中", "痩せる",
    "ダイエットサプリ",
)  # fmt: skip
FOOTERS = (
    "無断転載", "無断複写", "無断転載禁止", "無断転載を禁じます", "著作権", "©", "copyright", "all rights reserved",
    "利用規約", "プライバシーポリシー", "個人情報保護方針", "特定商取引法", "特定商取引法に基づく表記", "ログイン",
    "ログアウト", "会員登録", "新規登録", "マイページ", "カート", "お問い合わせ", "サイトマップ", "会社概要",
    "運営会社", "採用情報", "前の記事", "次の記事", "トップページ", "ホーム", "もっと見る", "続きを読む", "関連記事",
    "人気記事", "新着記事", "コメント", "トラックバック", "シェア", "ツイート", "いいね", "フォロー",
    "ページトップへ", "このページの先頭へ", "お気に入り", "ヘルプ", "よくある質問",
)  # fmt: skip


def get_config(arg: str = ""):
    c = ConfigDict()
    rules = en.chosen(LEFT_OUT)
    rules.function_characters = dict(signal="stop_words", min=2.0)
    rules.length = dict(signal="words", min=400.0, where=dict(prose=en.PROSE))
    rules.hiragana = dict(signal="hiragana", min=0.03)
    rules.katakana = dict(signal="katakana", max=0.5)
    rules.hiragana_of_japanese = dict(signal="hiragana_of_japanese", min=0.18)
    rules.ellipses = dict(signal="ellipses_per_sentence", max=0.2)
    rules = rules if arg == "unfitted" else en.fitted(rules, THRESHOLDS)
    rules.update(en.PHRASES)
    # Share of the text: documentation that is half code must pass, other languages not.
    rules.language = dict(signal="language", min=0.2)
    c.filters = dict(
        ja=dict(unit="character", stop_words=STOP, spam=SPAM, boilerplate=FOOTERS, language="ja", pii=True, rules=rules)
    )
    return c
