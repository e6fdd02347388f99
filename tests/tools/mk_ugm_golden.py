#!/usr/bin/env python3
"""mk_ugm_golden.py [--live HEARTH [-n N]]: golden data for unigram vocabularies, made with SentencePiece 0.2.x.

Without options it trains three small models on LICENSE and the sentences below, and writes
tests/ugm/NAME.gguf and tests/ugm/NAME.jsonl: the ids SentencePiece gives for each text, and the text it makes of them.
    plain    rules of their own (RULES), blank in front, runs of blanks count once, added tokens
    bytes    no rules, nothing trimmed, no blank in front, byte tokens, pieces across words
    bare     rules but no blank in front, no byte tokens; blanks kept
--live trains a fourth with SentencePiece's own NFKC rules (240 KB, so not stored) and compares it and the three with
`HEARTH tokenize` and `detokenize` on N random texts. The last line reads 'N passed, N failed'.
Needs the packages sentencepiece, gguf and numpy."""
import argparse
import base64
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

import gguf
import sentencepiece

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HOME = TESTS + '/ugm'
SENTENCES = '''Der schnelle braune Fuchs springt über den faulen Hund, während die Größe der Häuser wächst.
Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter en canoë au-delà des îles.
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío; añoraba a su querido cachorro.
Съешь же ещё этих мягких французских булок да выпей чаю. Широкая электрификация южных губерний.
Η γρήγορη καφέ αλεπού πηδά πάνω από το τεμπέλικο σκυλί. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.
色は匂へど散りぬるを我が世誰ぞ常ならむ有為の奥山今日越えて浅き夢見じ酔ひもせず
いろはにほへと ちりぬるを わかよたれそ つねならむ カタカナ テスト データ
我能吞下玻璃而不伤身体。视野无限广,窗外有蓝天。天地玄黄 宇宙洪荒 日月盈昃 辰宿列张
키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. 다람쥐 헌 쳇바퀴에 타고파
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق
दीवारबंद जयपुर ऐसी दुनिया है जहाँ लोग रोज़ चलते हैं। ऋषियों को सताने वाले दुष्ट राक्षसों के राजा
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน
1234567890 3.14159 -42 1e-5 100% $9.99 a+b=c x*y {key: "value"} [1, 2, 3] <tag attr='x'/> // comment
if (x > 0) { return x * 2; } else { printf("%d\\n", x); } def f(a, b): return a ** b # python
😀 😃 😄 👍🏽 👨‍👩‍👧 🇩🇪 ❤️ ✓ → ← ∑ ∞ √ ≈ ≠ €
'''.splitlines()
# A rule maps code points to code points (hex, blank between); what NFKC and SentencePiece's own table do, in small.
RULES = {'\t': ' ', '\n': ' ', '\r': ' ', '\f': ' ', '\u00a0': ' ', '\u3000': ' ', '\u2028': ' ', '\u2581': ' ', '\u200b': '', '\ufeff': '', '\u00ad': '', '\x01': '',
         '\ufb01': 'fi', '\ufb02': 'fl', '\u2026': '...', '\u00bd': '1\u20442', '\u2122': 'TM', '\u00b2': '2', '\u2460': '1', '\u337f': '株式会社', '\ufdfa': 'صلى الله عليه وسلم',
         'e\u0301': 'é', 'u\u0308': 'ü', 'o\u0308': 'ö', 'a\u0308': 'ä', 'A\u030a': 'Å', 'n\u0303': 'ñ', 'か\u3099': 'が', '\u1112\u1161\u11ab': '한', '\u1112\u1161': '하', '\ufb01x': 'FIX',
         **{chr(0xff01 + i): chr(0x21 + i) for i in range(94)}, **{chr(0xff71 + i): chr(c) for i, c in enumerate(range(0x30a2, 0x30aa, 2))}}
USER = ['<sep>', '<extra_0>', '<extra_01>', 'ｗｉｄｅ']
TRAIN = {'plain': dict(vocab_size=620, user_defined_symbols=USER, control_symbols=['<ctl>']),
         'bytes': dict(vocab_size=800, byte_fallback=True, normalization_rule_name='identity', add_dummy_prefix=False, remove_extra_whitespaces=False,
                       split_by_whitespace=False, split_by_unicode_script=False, split_by_number=False),
         'bare': dict(vocab_size=560, add_dummy_prefix=False, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True),
         'nfkc': dict(vocab_size=700, user_defined_symbols=USER)}
ODD = ['', ' ', '   ', '\t', '\n\n', 'a', ' a', 'a ', '  a  b  ', 'a\u00a0b', 'a\u2581b', '\u2581', '\u2581\u2581a', '\u200b', 'a\u200b b', ' \u200b a', '\u200b ', '\ufeffBOM', 'x\x00y', '\x00', '\x7f\x01\x02',
       '<sep>', 'a<sep>b', 'a <sep> b', '  <sep>  <sep>  ', '<extra_0>', '<extra_01>', '<extra_0', '<extra_', 'ｗｉｄｅ', 'ｗｉｄ', '＜ｓｅｐ＞', '<s>', '</s>', '<unk>', '<ctl>', '<0x41>', 'a</s>b',
       'ﬁ', 'ﬁx', 'ﬁne ﬂow', '…', '½ ² ™ ①', '㍿', 'ﷺ', 'cafe\u0301', 'café', 'u\u0308ber', 'か\u3099く', '\u1112\u1161\u11ab', '\u1112\u1161', 'Ａｂｃ　１２３！', 'ｱｲｳｴｵ',
       '\U0001f600', '\U0001f44d\U0001f3fd', '\U0001f468\u200d\U0001f469\u200d\U0001f467', '\U0010ffff', '\ufffd', '\ufffe', '\ue000', '\u0e33', '\u0627\u0644\u0644\u0647', '\u202eabc\u202c',
       '\U00020000\U0002a6d6', '\u0300', '\u0301\u0301\u0301', 'a\u0301\u0327', 'q\u0323\u0307', 'Ⅷ ⅷ', 'ǆ Ǆ', 'ß ẞ ſ', 'İ ı', 'Σας', '🇩🇪🇫🇷', '1️⃣', 'ᚠᛇᚻ', '𝔘𝔫𝔦', '\u3000\u3000x',
       'a' * 90, 'ab' * 40, ' ' * 12, 'the ' * 20, '語' * 50, '\U0001f600' * 30, 'a\nb\r\nc\td', '____', '....', '-' * 80, '=' * 33, '"' * 9, "don't", 'HELLO World', 'lower UPPER MiXeD',
       '0123456789' * 8, '3.14', '1,000,000', 'http://example.org/a?b=c&d=%20#e', 'foo_bar-baz.qux@example.org', 'C:\\dir\\file.txt', '<a href="x">y</a>', 'if(a&&b||!c){}', '\\n\\t\\u0041']
# Ill-formed bytes: each maximal part counts as U+FFFD.
BYTES = [b'\xff', b'a\xc3', b'\xe2\x96', b'\xf0\x9f\x98', b'\xed\xa0\x80', b'a\x80b', b'\xc0\xaf', b'\xf8\x88\x80\x80\x80', b'ok \xe4\xb8 ok', b'\xe2\x96\x81\xe2\x96']


def corpus():
    lines = list(SENTENCES) * 6 + open(os.path.dirname(TESTS) + '/LICENSE', encoding='utf-8').read().splitlines()
    return [x for x in lines if x.strip()]


def rules_file():
    hexes = lambda s: ' '.join(f'{ord(c):X}' for c in s)  # noqa: E731
    return ''.join(f'{hexes(a)}\t{hexes(b)}\n' for a, b in sorted(RULES.items()))


def train(name, folder):
    rules = folder + '/rules.tsv'
    open(rules, 'w').write(rules_file())
    more = dict(TRAIN[name])
    if name in ('plain', 'bare'):
        more['normalization_rule_tsv'] = rules
    elif name == 'nfkc':
        more['normalization_rule_name'] = 'nmt_nfkc'
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus()), model_prefix=f'{folder}/{name}', model_type='unigram', num_threads=1, hard_vocab_limit=False,
                                             character_coverage=0.999, minloglevel=2, **more)
    return f'{folder}/{name}.model'


def fields(raw):
    """(number, value) of a protocol buffer message; of the kinds that SentencePiece's file has."""
    at = 0

    def varint():
        nonlocal at
        v, shift = 0, 0
        while True:
            v |= (raw[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if raw[at - 1] < 128:
                return v
    while at < len(raw):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            n = varint() if key & 7 == 2 else {1: 8, 5: 4}[key & 7]
            yield key >> 3, raw[at:at + n]
            at += n


def to_gguf(model, path):
    """The keys as llama.cpp's convert_hf_to_gguf.py writes them for T5 (field numbers: sentencepiece_model.proto)."""
    parts = list(fields(open(model, 'rb').read()))
    pieces = [dict(fields(v)) for k, v in parts if k == 1]
    rules = dict(fields(next(v for k, v in parts if k == 3)))
    sp = sentencepiece.SentencePieceProcessor(model_file=model)
    w = gguf.GGUFWriter(path, 't5')
    w.add_tokenizer_model('t5')
    w.add_tokenizer_pre('default')
    w.add_token_list([p[1] for p in pieces])
    w.add_token_scores([struct.unpack('<f', p[2])[0] for p in pieces])
    w.add_token_types([p.get(3, 1) for p in pieces])
    w.add_add_space_prefix(bool(rules.get(3, 1)))
    w.add_remove_extra_whitespaces(bool(rules.get(4, 1)))
    if rules.get(2):
        w.add_precompiled_charsmap(rules[2])
    w.add_bos_token_id(sp.bos_id())
    w.add_eos_token_id(sp.eos_id())
    w.add_unk_token_id(sp.unk_id())
    w.add_add_bos_token(False)
    w.add_add_eos_token(True)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def case(sp, text):
    raw = text if isinstance(text, bytes) else text.encode()
    shown = raw.decode('utf-8', 'replace')
    ids = sp.encode(shown)
    row = {'b64': base64.b64encode(raw).decode()} if isinstance(text, bytes) else {'text': text}
    row['ids'] = ids
    if sp.unk_id() not in ids:                      # SentencePiece shows an unknown token as a sign of its own
        row['back'] = sp.decode(ids)
    return row


def random_text(r, lines):
    kind = r.randrange(7)
    if kind == 0:
        return ''.join(chr(r.choice([r.randrange(0x20, 0x7f), r.randrange(0x80, 0x800), r.randrange(0x800, 0xd800), r.randrange(0xe000, 0x10000), r.randrange(0x10000, 0x110000)])) for _ in range(r.randrange(1, 40)))
    if kind == 1:
        return ''.join(r.choice([' ', '  ', 'a', 'the', '\u2581', '\t', '<sep>', '\u200b', 'é', 'e\u0301', '語', '.', 'ﬁ', '<extra_0', '1>']) for _ in range(r.randrange(1, 30)))
    if kind == 2:
        return ''.join(chr(r.randrange(0xf900, 0x10000)) for _ in range(r.randrange(1, 30)))
    if kind == 3:
        return ''.join(r.choice(list(RULES) + list(RULES.values()) + [' ', 'x']) for _ in range(r.randrange(1, 25)))
    s = r.choice(lines)
    if kind == 4:
        a = r.randrange(len(s))
        return s[a:a + r.randrange(1, 60)]
    if kind == 5:
        s = list(s)
        for _ in range(r.randrange(1, 6)):
            s[r.randrange(len(s))] = chr(r.choice([0x20, 0xa0, 0x301, 0x3000, 0x1f600, 0x41]))
        return ''.join(s)
    return ' '.join(r.choice(lines) for _ in range(r.randrange(1, 12)))


def ask(probe, command, path, cases):
    lines = ''.join(json.dumps({**c, 'id': i, 'add_special': False}) + '\n' for i, c in enumerate(cases))
    out = subprocess.run([*probe, command, '-m', path], input=lines.encode(), stdout=subprocess.PIPE, timeout=300).stdout
    return {o['id']: o for o in map(json.loads, out.splitlines())}


def is_tie(sp, want, got):
    """The same pieces up to score and rounding: covers of equal score are told apart by the last bit of a sum."""
    return ''.join(sp.id_to_piece(want)) == ''.join(sp.id_to_piece(got)) and abs(sum(sp.get_score(want)) - sum(sp.get_score(got))) < 1e-4


def compare(name, probe, sp, path, rows):
    """Counts of rows that agree, that agree but for a tie, and that do not agree."""
    passed = tied = failed = 0
    got = ask(probe, 'tokenize', path, [{k: r[k] for k in ('text', 'b64') if k in r} for r in rows])
    back = ask(probe, 'detokenize', path, [{'tokens': r['ids']} for r in rows])
    for i, r in enumerate(rows):
        shown = base64.b64decode(back.get(i, {}).get('b64', '')).decode('utf-8', 'replace')
        ids = got.get(i, {}).get('tokens')
        same = ids == r['ids']
        tied += not same and ids is not None and is_tie(sp, r['ids'], ids)
        good = (same or (ids is not None and is_tie(sp, r['ids'], ids))) and shown == r.get('back', shown)
        passed, failed = passed + good, failed + (not good)
        if not good and failed <= 10:
            print(f'{name}: {r.get("text", r.get("b64"))!r}\n    want {r["ids"]} {r.get("back")!r}\n    got  {ids} {shown!r}')
    print(f'{name}: {passed} agree ({tied} of them but for a tie), {failed} do not')
    return passed, failed


def live(probe, n):
    r, lines, total = random.Random(5), corpus(), [0, 0]
    with tempfile.TemporaryDirectory() as folder:
        for name in TRAIN:
            model = train(name, folder)
            to_gguf(model, f'{folder}/{name}.gguf')
            sp = sentencepiece.SentencePieceProcessor(model_file=model)
            rows = [case(sp, t) for t in ODD + BYTES + lines[:200] + [random_text(r, lines) for _ in range(n)]]
            done = compare(name, probe, sp, f'{folder}/{name}.gguf', rows)
            total = [a + b for a, b in zip(total, done)]
    print(f'{total[0]} passed, {total[1]} failed')
    return total[1]


def write():
    os.makedirs(HOME, exist_ok=True)
    r, lines = random.Random(3), corpus()
    texts = ODD + BYTES + SENTENCES + [random_text(r, lines)[:90] for _ in range(70)]
    with tempfile.TemporaryDirectory() as folder:
        for name in ('plain', 'bytes', 'bare'):
            model = train(name, folder)
            to_gguf(model, f'{HOME}/{name}.gguf')
            sp = sentencepiece.SentencePieceProcessor(model_file=model)
            with open(f'{HOME}/{name}.jsonl', 'w', encoding='utf-8') as o:
                o.write(''.join(json.dumps(case(sp, t), separators=(',', ':')) + '\n' for t in texts))
    print(len(texts), 'texts a model,', sum(os.path.getsize(f'{HOME}/{p}') for p in os.listdir(HOME)), 'bytes')


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--live', default='')
    ap.add_argument('-n', type=int, default=2000)
    a = ap.parse_args()
    sys.exit(1 if (live(a.live.split(), a.n) if a.live else write()) else 0)


main()
