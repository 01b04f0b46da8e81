"""Some three thousand texts of our own to compare tokenizers on, the same ones in every run, by kind.

``plain()`` gives what people write; the other kinds are what programs, keyboards and attackers send.  Characters that
cannot be seen are written as escapes.
"""

import random
import unicodedata
from collections.abc import Callable, Sequence

SEED = 20
PLAIN = ("sentences", "reviews", "numbers", "addresses", "quotes", "chinese", "accents", "scripts")

SUBJECTS = (
    "The ferry", "My sister-in-law", "A U.S.-led committee", "The engineer", "Dr. O'Neill", "This well-made film",
    "The company's new phone", "J.R.R. Miller", "Everyone in the room", "The Anglo-Dutch firm", "Our 12-year-old",
)  # fmt: skip
VERBS = (
    "repaired", "didn't like", "has never seen", "wrote about", "couldn't find", "sold", "re-opened", "would've kept",
    "left behind", "praised", "is looking for",
)  # fmt: skip
OBJECTS = (
    "the clock in the tower", "a state-of-the-art oven", "two thousand bricks", "the old harbour", "its own rules",
    "a rock 'n' roll record", "the mid-1990s report", "nobody's fault", "an e-mail", "the so-called proof",
)  # fmt: skip
ENDS = (
    "yesterday.", "at 11:40 p.m.!", "on 14 March 2019;", "(again).", "- or so they say.", "– at last.", "— why?",
    "... twice", "for €7.", "for £5,", "in the end?!", "[sic].", "{see note 3}", "at no. 7",
)  # fmt: skip
PRAISE = ("gorgeous", "witty", "slow-burning", "surprisingly tender", "A+ stuff", "top-notch", "must-see")
BLAME = ("boring", "half-baked", "over-long", "so-so", "a let-down", "not funny", "dull as dishwater", "2/10")
THINGS = ("plot", "acting", "battery", "service", "soup", "sound-track", "waiter's manner", "ending")

SIMPLIFIED = (
    "昨天下午",
    "他们",
    "在图书馆门口",
    "见面",
    "外卖送得很快",
    "味道不错",
    "就是有点咸",
    "屏幕太暗",
    "很满意",
)
TRADITIONAL = (
    "昨天下午",
    "他們",
    "在圖書館門口",
    "見面",
    "外賣送得很快",
    "味道不錯",
    "就是有點鹹",
    "螢幕太暗",
    "很滿意",
)
CHINESE_MARKS = ("。", "，", "！", "？", "；", "：", "、", "……", "——", "」", "》")
LATIN = ("iPhone", "Wi-Fi", "USB-C", "KTV", "3.5%", "App", "G20", "A股", "T恤")

ACCENTED = (
    "Les élèves ont planté un chêne derrière l'école", "El niño pequeñísimo comió piñas", "Łódź, Kraków i Gdańsk",
    "Straße, Maße und Füße: GROSS oder GROẞ", "İstanbul'da IŞIK ve ılık", "Ὀδυσσεύς καὶ οἱ σοφοὶς ΛΟΓΟΣ",
    "Tiếng Việt: người Hà Nội thường uống trà đá", "Žluťoučký kůň pěl ďábelské ódy", "Åse så på en ø i Århus",
    "naïve façade, coöperate, Zoë's résumé", "São Paulo não é o Rio", "Õhtul jõuame kööki",
)  # fmt: skip
OTHER_SCRIPTS = (
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ", "สวัสดีครับ ผมชอบร้านนี้มาก", "हिन्दी में लिखा हुआ एक वाक्य।", "क्षत्रिय और ज्ञान",
    "هذا نصٌّ مكتوبٌ بالعربية، أليس كذلك؟", "مرحبا بالعالم ١٢٣", "שלום עולם, מה שלומך?", "בְּרֵאשִׁית בָּרָא",
    "한국어 문장입니다. 정말 좋아요!", "서울에서 부산까지", "これは日本語の文です。", "カタカナとひらがなと漢字",
    "ﾊﾝｶｸ ｶﾅ",
    "Привет, мир! Ёлка и йод", "გამარჯობა მსოფლიო", "Բարեւ աշխարհ", "ሰላም ዓለም", "தமிழ் எழுத்து", "ខ្ញុំស្រឡាញ់",
)  # fmt: skip

EMOJI = (
    "👍🏽", "👩\u200d💻", "👨\u200d👩\u200d👧\u200d👦", "🏳\ufe0f\u200d🌈", "🇩🇪",
    "🇺🇸🇬🇧", "❤\ufe0f", "☺", "1\ufe0f\u20e3", "🎉🎉🎉", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
)  # fmt: skip
INVISIBLE = (
    "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u200e", "\u200f", "\u202e", "\u2066", "\ufe0f",
    "\u180e", "\u061c", "\u034f", "\u115f", "\u3164",
)  # fmt: skip
SPACES = (
    "\u00a0", "\u3000", "\u2002", "\u2009", "\u200a", "\u202f", "\u205f", "\u1680", "\t", "\n", "\r\n", "\r", "\v",
    "\f", "\u0085", "\u2028", "\u2029", "  ", "          ", " \n \n ",
)  # fmt: skip
CONTROLS = (
    "\x00", "\x01", "\x07", "\x08", "\x1b[31m", "\x1f", "\x7f", "\x80", "\x9f", "\ufff9", "\ufffd", "\ufffe", "\uffff",
)  # fmt: skip
MARKS = ("\u0301", "\u0308", "\u0327", "\u20d7", "\u05b0", "\u064b", "\u0e31", "\u093f", "\u3099", "\u0307\u0323")
LOOKALIKES = (
    "ＡＢＣ１２３！", "ｆｕｌｌ ｗｉｄｔｈ", "ﬁre and ﬂood, oﬃce", "x² + y³ = z⁴", "H₂O", "½ tsp, ¾ cup",
    "№ 5 ™ ® ©", "①②③ Ⅷ ⅷ",
    "𝐛𝐨𝐥𝐝 𝒊𝒕𝒂𝒍𝒊𝒄 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 𝟜𝟚", "ℕ ⊂ ℤ ⊂ ℚ", "ĳ Ǆ ŉ ſ", "㎏ ㏒ ㍿", "\ue000\uf8ff", "\U000f0000", "𠀀𪚥 rare",
    "⼈⼝ 豈更", "K Å Ω",
)  # fmt: skip
CONTROL_TOKENS = (
    "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<unk>", "<pad>", "<s>", "</s>", "▁", "▁the", "##ing", "##", "[cls]",
    "[ SEP ]", "<UNK>", "[unused1]",
)  # fmt: skip


def kinds() -> dict[str, list[str]]:
    """Every text, by its kind."""
    draw = random.Random(SEED)
    made = {name: [make(draw) for _ in range(count)] for name, (count, make) in MAKERS.items()}
    return made | {"fixed": list(FIXED)}


def texts() -> list[str]:
    """All texts, kind after kind."""
    return [text for group in kinds().values() for text in group]


def plain() -> list[str]:
    """The texts of the kinds that people write."""
    return [text for kind, group in kinds().items() if kind in PLAIN for text in group]


def _sentence(draw: random.Random) -> str:
    return " ".join(draw.choice(part) for part in (SUBJECTS, VERBS, OBJECTS, ENDS))


def _review(draw: random.Random) -> str:
    opinion = draw.choice([PRAISE, BLAME])
    first = f"The {draw.choice(THINGS)} was {draw.choice(opinion)}, {draw.choice(opinion)}"
    second = f"but I{draw.choice(['', ' really', ' still'])} {draw.choice(VERBS)} the {draw.choice(THINGS)}"
    return f"{first} -- {second}{draw.choice(['.', '!!!', '...', '?', ' :-)'])} {_sentence(draw)}"


def _numbers(draw: random.Random) -> str:
    number = draw.randrange(1, 10_000_000)
    forms = (
        f"{number:,}", f"{number / 1000:.1f}%", f"£{number:,}", f"€{number / 100:.2f}", f"${number}m", f"-{number}",
        f"{number}th", f"{number % 24}:{number % 60:02}", f"{number:#x}", f"1.5e-{number % 9}", f"({number})",
        f"{number % 28 + 1}/{number % 12 + 1}/2019", f"+49 {number}", f"{number}-{number + 5}",
        f"{number}–{number + 9}",
    )  # fmt: skip
    return f"{draw.choice(SUBJECTS)} paid {draw.choice(forms)}, not {draw.choice(forms)} {draw.choice(ENDS)}"


def _address(draw: random.Random) -> str:
    host = draw.choice(["example.org", "www.example.com", "sub-domain.example.co.uk:8080", "münchen.example"])
    forms = (
        f"https://{host}/a_b/c-d?x=1&y=%20#top", f"anna.lee+news@{host}", f"http://{host}", "@someone #NoFilter",
        "C:\\Users\\me\\file_v2.txt", "./run.sh --flag=1 | tee log", "snake_case camelCase", "10.0.0.1/8", "a<b>c</b>",
    )  # fmt: skip
    return f"See {draw.choice(forms)} or write to {draw.choice(forms)}: {draw.choice(ENDS)}"


def _quote(draw: random.Random) -> str:
    marks = (
        ("``", "''"), ('"', '"'), ("“", "”"), ("‘", "’"), ("'", "'"), ("«", "»"), ("„", "“"), ("(", ")"), ("[", "]"),
        ("```", "'''"), ("`", "`"), ("<", ">"),
    )  # fmt: skip
    opening, closing = draw.choice(marks)
    return f"She said, {opening}{_sentence(draw)}{closing} and {draw.choice(VERBS)} {opening}it{closing}."


def _chinese(draw: random.Random) -> str:
    words = draw.choice([SIMPLIFIED, TRADITIONAL])
    parts = draw.choices([*words, *words, *LATIN], k=draw.randrange(2, 9))
    return "".join(f"{part}{draw.choice(['', '', ' ', *CHINESE_MARKS])}" for part in parts)


def _accents(draw: random.Random) -> str:
    text = " ".join(draw.sample(ACCENTED, draw.randrange(1, 4)))
    cased = draw.choice([text, text, text.upper(), text.lower(), text.title()])
    return unicodedata.normalize(draw.choice(["NFC", "NFD"]), cased)


def _script(draw: random.Random) -> str:
    return draw.choice([" ", "，", " - "]).join(draw.sample(OTHER_SCRIPTS, draw.randrange(1, 4)))


def _mixed_with(pieces: Sequence[str], gaps: Sequence[str] = ("", " ")) -> Callable[[random.Random], str]:
    """Makes sentences with some of ``pieces`` before, between and inside their words."""

    def make(draw: random.Random) -> str:
        text = _sentence(draw)
        for _ in range(draw.randrange(1, 5)):
            at = draw.randrange(len(text) + 1)
            text = text[:at] + draw.choice(gaps) + draw.choice(pieces) + draw.choice(gaps) + text[at:]
        return text

    return make


def _long_word(draw: random.Random) -> str:
    unit = draw.choice(["a", "ab-", "é", "他", "supercalifragilistic", "e\u0301", "x.", "1,", "👍🏽", "ﬁ"])
    word = unit * draw.choice([20, 99, 100, 101, 150, 400])
    return f"{draw.choice(['', 'so ', '('])}{word}{draw.choice(['', '.', ' on'])}"


def _punctuation(draw: random.Random) -> str:
    return "".join(
        draw.choices(
            "!?.,;:-–—()[]{}<>\"'`´“”‘’«»…·•*&^%$#@~|\\/=+_£€¥¢§¶†‡°。，！？、「」《》 ", k=draw.randrange(1, 25)
        )
    )


def _noise(draw: random.Random) -> str:
    """Letters from anywhere; halves of surrogate pairs are no characters."""
    numbers = (draw.randrange(draw.choice([0x250, 0x3000, 0x10000, 0x110000])) for _ in range(draw.randrange(1, 30)))
    return "".join(chr(number) for number in numbers if not 0xD800 <= number < 0xE000)


MAKERS: dict[str, tuple[int, Callable[[random.Random], str]]] = {
    "sentences": (350, _sentence),
    "reviews": (250, _review),
    "numbers": (200, _numbers),
    "addresses": (150, _address),
    "quotes": (200, _quote),
    "chinese": (300, _chinese),
    "accents": (200, _accents),
    "scripts": (150, _script),
    "emoji": (150, _mixed_with(EMOJI)),
    "invisible": (150, _mixed_with(INVISIBLE)),
    "spaces": (150, _mixed_with(SPACES)),
    "controls": (100, _mixed_with(CONTROLS)),
    "combining": (100, _mixed_with(MARKS)),
    "lookalikes": (150, _mixed_with(LOOKALIKES)),
    "control tokens": (150, _mixed_with(CONTROL_TOKENS)),
    "long words": (60, _long_word),
    "punctuation": (80, _punctuation),
    "noise": (100, _noise),
}
FIXED = (
    "", " ", "\n", "\x00", "\ufeff", "\ufeffHello", "a\ufeffb", "\u0301", "\u0301a", "\u200b", "\u00ad", "\u3000", ".",
    "-", "``", "''", "`` ''", "``quoted''", "▁", "▁▁", "▁a", "a▁b", "[CLS]", "[SEP]", "[MASK]", "<unk>", "<pad>", "##",
    "##ing", "[CLS][SEP]", "a[MASK]b", "İ", "ß", "ẞ", "ΣΣ", "ΟΔΟΣ ", "ǅ", "ﬃ", "e\u0301", "é", "가", "\u1100\u1161",
    "ｶﾞ", "U.S.", "U.S.-led", "(a)", '"', "–", "£", "€", "£5 €7", "a–b", "1,000", "1,000.50", "3.5%", "a" * 5000,
    " " * 500, "a " * 500, "\r\n" * 50, "\t\t", "  lead", "trail  ", "他", "他们", "𠀀", "👍🏽", "🇩🇪🇩", "\u200d",
    "\ue000", "\U0010ffff", "ن\u0651", "กำ", "ก\u0e4d\u0e32", "क\u094dष",
)  # fmt: skip
