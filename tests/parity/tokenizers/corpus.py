"""Strings to compare tokenizers on. All randomness is seeded: two runs see the same strings."""

import pathlib
import random

ROOT = pathlib.Path(__file__).resolve().parents[3]

SENTENCES = [
    "The quick brown fox jumps over the lazy dog; it's 12:45, and they've won 3,141.59 points!",
    "I'm sure we'll see that she'd SAY IT'S WE'RE THEY'LL can't won't o'clock 'tis rock'n'roll",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich – für 1.234,56 €.",
    "Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis. « Déjà vu ? »",
    "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia; ¿qué más? ¡Año!",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. 2024 год.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Ὕδωρ καὶ πῦρ.",
    "敏捷的棕色狐狸跳过了懒狗。今天是2024年3月15日，温度是23.5℃。「引号」、标点！",
    "いろはにほへと ちりぬるを。カタカナとｶﾀｶﾅ、東京タワーは３３３ｍです。",
    "다람쥐 헌 쳇바퀴에 타고파. 키스의 고유조건은 입술끼리 만나야 하고",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ١٢٣٤٥ ۶۷۸",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה; שָׁלוֹם עוֹלָם",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश १२३४५",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ๑๒๓",
    "Do bạch kim rất quý nên sẽ dùng để lắp vô xương. Tiếng Việt có dấu.",
    "Pchnąć w tę łódź jeża lub ośm skrzyń fig. Příliš žluťoučký kůň úpěl.",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ❤️ ☃︎ 1️⃣ 😀😃😄 e\u0301 n\u0303 A\u030A \u1100\u1161\u11A8",
    "x² + y³ = z⁴, ½ ¾ ⅷ Ⅻ ① ⑳ ㊿ ๓ ߊ 𝟙𝟚𝟛 𝐀𝐁𝐂 ﬁ ﬂ ﬃ K Å Ω",
    "print(f\"{x!r:>{width}}\")\n\tif (a != b && c <= d || !e) { return -1; }  // done\r\n",
    "https://example.org/a/b?c=d&e=%20f#g  user.name+tag@host.example  C:\\dir\\file.txt",
]

SPACES = [chr(c) for c in (9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B),
                           0x2028, 0x2029, 0x202F, 0x205F, 0x3000)]
ODD = ["\u200b", "\u180e", "\ufeff", "\u017f", "'\u017f", "'S", "'Re", "'VE", "'lL", "\0", "\x1c",
       "\x7f", "\u0301", "\u0345", "\u0f71", "\uac00", "\u11a8", "\U000e0001", "\U0010ffff", "'", "’"]


def code():
    """Sources of this project; build folders beside them change while tests run."""
    folders = [ROOT / name for name in ("actor", "broker", "common", "configs", "kernels", "launch",
                                        "learner", "tests")]
    names = sorted([*ROOT.glob("common/**/*.cc"), *ROOT.glob("actor/**/*.cc"),
                    *ROOT.glob("tests/**/*.py"), ROOT / "README.md",
                    *(name for folder in folders for name in folder.glob("**/README.md"))])
    return [path.read_text(encoding="utf-8") for path in names]


def every_character():
    """Each scalar value after a letter, a space and a digit, and before a digit; 256 a string."""
    scalars = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for start in range(0, len(scalars), 256):
        yield "".join(f"a{chr(c)} {chr(c)}1{chr(c)}2\n" for c in scalars[start:start + 256])


def marks():
    """Characters that normalization composes, takes apart or reorders."""
    return [chr(c) for c in (*range(0x300, 0x370), *range(0x591, 0x5C8), *range(0x64B, 0x660),
                             *range(0x93C, 0x950), *range(0x1100, 0x1200), *range(0x1DC0, 0x1E00),
                             *range(0x1E00, 0x1F00), *range(0x2120, 0x2140), *range(0xF900, 0xFB50),
                             0x16D63, 0x16D67, 0x16D69, 0x113CE, 0x1611E, 0x10D69)]


def random_string(rng, specials, sources, mark):
    """One string of a random kind."""
    kind = rng.randrange(10)
    if kind == 0:  # any characters
        top = rng.choice([0x80, 0x250, 0x3000, 0x11000, 0x110000])
        picks = (rng.randrange(top) for _ in range(rng.randrange(1, 40)))
        return "".join(chr(c) for c in picks if not 0xD800 <= c < 0xE000)
    if kind == 1:  # code
        text = rng.choice(sources)
        at = rng.randrange(len(text))
        return text[at:at + rng.randrange(1, 400)]
    if kind == 2:  # languages
        return " ".join(rng.choice(SENTENCES) for _ in range(rng.randrange(1, 4)))
    if kind == 3:  # white space
        parts = (rng.choice([rng.choice(SPACES) * rng.randrange(1, 5), rng.choice(SPACES),
                             rng.choice("aZ9é漢.,-'")]) for _ in range(rng.randrange(1, 30)))
        return "".join(parts)
    if kind == 4:  # special tokens, also broken and beside words and spaces
        parts = (rng.choice([rng.choice(specials), rng.choice(specials)[:-1], rng.choice(SPACES),
                             rng.choice("ab1_ é<|>"), rng.choice(SENTENCES)[:9]])
                 for _ in range(rng.randrange(1, 12)))
        return "".join(parts)
    if kind == 5:  # numbers
        digits = "0123456789٠١٢३४五½Ⅷ²𝟘"
        parts = (rng.choice([rng.choice(digits), rng.choice(digits) * rng.randrange(1, 9), " ", ",",
                             "."]) for _ in range(rng.randrange(1, 20)))
        return "".join(parts)
    if kind == 6:  # contractions and other oddities
        words = ["it", "I", "they", "WE", "don", "", " ", "'s", "'T", "'re", "'Ll", "'d", "'M", *ODD]
        return "".join(rng.choice(words) for _ in range(rng.randrange(1, 15)))
    if kind == 7:  # combining marks
        return "".join(rng.choice([rng.choice(mark), rng.choice("aeouAEcnsי한가क ")])
                       for _ in range(rng.randrange(1, 25)))
    if kind == 8:  # long words
        return rng.choice(["a", "ab", "ha", " ", "\n ", "漢字", "=-", "0"]) * rng.randrange(1, 200)
    text = rng.choice(SENTENCES)
    return "".join(rng.choice([c, c, c, c.upper(), c + c, rng.choice(ODD), ""]) for c in text)


def broken(rng, text):
    """Bytes of `text` with some of them changed, cut out or put in."""
    data = bytearray(text.encode("utf-8"))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        if rng.randrange(3) == 0 and at < len(data):
            del data[at]
        else:
            data[at:at] = rng.choice([bytes([rng.randrange(128, 256)]), b"\xed\xa0\x80", b"\xc0\xaf",
                                      b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\xe2\x82", b"\xff"])
    return bytes(data)


def strings(seed, count, specials):
    """`count` byte strings; one in eight is not UTF-8."""
    rng = random.Random(seed)
    sources, mark = code(), marks()
    out = [s.encode("utf-8") for s in (*specials, *SENTENCES, *SPACES, *ODD, "")]
    while len(out) < count:
        text = random_string(rng, specials, sources, mark)
        out.append(broken(rng, text) if rng.randrange(8) == 0 else text.encode("utf-8"))
    return out
