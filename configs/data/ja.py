"""The Japanese web filter: the English rules with thresholds fitted to characters, and Swallow's own rules.

    kanana filter --config configs/data/ja.py --input 'web/*.jsonl.gz' --lang ja --output filtered

Words are characters here, as in Swallow's corpus (arXiv:2404.17733, §3), so that no morphology is needed; thresholds
are in `ja_thresholds.json` with how they were fitted. Rules that count words as such are left out. Swallow: at least
400 letters, hiragana ≥ 0.2, katakana ≤ 0.5, sentences of 20–90 characters, none above 200, ellipses ≤ 0.2 a sentence.
"""

import pathlib

from kanana_jax.configs.data import ko
from ml_collections import ConfigDict

THRESHOLDS = pathlib.Path(__file__).with_name("ja_thresholds.json")
LEFT_OUT = (*ko.LEFT_OUT, "words", "mean_word_length", "ellipses_per_word")
# Function characters: two different ones are in any sentence or two (FineWeb2's list, its single characters).
STOP = tuple("のにをはたてがとでし")
SPAM = ("カジノ", "出会い系", "アダルト", "激安", "ブランドコピー", "スーパーコピー", "即日融資", "精力剤", "副業")
FOOTERS = ("無断転載", "無断複写", "著作権", "利用規約", "プライバシーポリシー", "ログイン", "会員登録", "copyright",
           "all rights reserved", "お問い合わせ", "サイトマップ", "前の記事", "次の記事", "トップページ")  # fmt: skip


def get_config():
    c = ConfigDict()
    rules = ko.fitted(ko.english_rules(LEFT_OUT), THRESHOLDS)
    # Documentation says nothing about these two: 0.85 lets 99% of Japanese literature pass, 0.1 is FineWeb2's.
    rules.alphabetic_words = dict(signal="alphabetic_words", min=0.85)
    rules.fineweb_duplicate_line_characters = dict(signal="fineweb_duplicate_line_characters", max=0.1)
    rules.function_characters = dict(signal="stop_words", min=2.0)
    rules.length = dict(signal="words", min=400.0)
    rules.hiragana = dict(signal="hiragana", min=0.2)
    rules.katakana = dict(signal="katakana", max=0.5)
    rules.mean_sentence = dict(signal="mean_sentence", min=20.0, max=90.0)
    rules.longest_sentence = dict(signal="longest_sentence", max=200.0)
    rules.ellipses = dict(signal="ellipses_per_sentence", max=0.2)
    rules.spam_words = dict(signal="spam_words", max=2.0)
    rules.boilerplate = dict(signal="boilerplate", max=0.4)
    # Share of the text: documentation that is half code must pass, other languages not.
    rules.language = dict(signal="language", min=0.2)
    c.filters = dict(
        ja=dict(unit="character", stop_words=STOP, spam=SPAM, boilerplate=FOOTERS, language="ja", pii=True, rules=rules)
    )
    return c
