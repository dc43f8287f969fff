#!/usr/bin/env python3
"""Writes the canonical composition data (NfcData.cs) and, with --vectors FILE, test vectors.

usage: generate_nfc.py NfcData.cs [--vectors nfc-vectors.txt]

Source: Python's unicodedata, a copy of the Unicode Character Database; its version is written into the output.
Format, all numbers LEB128:
  count, then per character with a canonical decomposition, ascending:
    character - previous character, 2 * first + composes, second (0: none)
    (composes: NFC keeps the character, so the pair composes to it)
  count, then per run of characters with one non-zero combining class:
    start - previous end, length, class
Hangul syllables are left out: they are arithmetic.
"""
import base64, random, sys, unicodedata as u

HANGUL = range(0xAC00, 0xD7A4)

def leb(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return out

def characters():
    return (c for c in range(0x110000) if not 0xD800 <= c < 0xE000)

def data():
    rows, previous = [], 0
    for c in characters():
        d = u.decomposition(chr(c))
        if not d or d.startswith('<') or c in HANGUL:
            continue
        parts = [int(x, 16) for x in d.split()]
        keeps = u.normalize('NFC', chr(c)) == chr(c)
        assert len(parts) == 2 or not keeps
        rows.append(leb(c - previous) + leb(parts[0] * 2 + keeps) + leb(parts[1] if len(parts) == 2 else 0))
        previous = c
    runs = []
    for c in characters():
        k = u.combining(chr(c))
        if not k:
            continue
        if runs and runs[-1][1] == c and runs[-1][2] == k:
            runs[-1][1] = c + 1
        else:
            runs.append([c, c + 1, k])
    out, end = leb(len(rows)) + b''.join(rows) + leb(len(runs)), 0
    for start, stop, k in runs:
        out += leb(start - end) + leb(stop - start) + leb(k)
        end = stop
    return bytes(out)

def write_data(path):
    text = base64.b64encode(data()).decode()
    lines = [text[i:i + 116] for i in range(0, len(text), 116)]
    with open(path, 'w', encoding='utf-8', newline='\n') as f:
        f.write('namespace Qwen2Quant.Model.Tokenization.Unicode;\n\n')
        f.write('/// <summary>Canonical decompositions and combining classes, written by <c>generate_nfc.py</c>, which documents the format.</summary>\n')
        f.write('internal static class NfcData\n{\n')
        f.write(f'    public const string UnicodeVersion = "{u.unidata_version}";\n\n')
        f.write('    public const string Base64 = """\n')
        f.writelines(f'        {line}\n' for line in lines)
        f.write('        """;\n}\n')

def write_vectors(path):
    rng = random.Random(20240607)
    marks = [c for c in characters() if u.combining(chr(c))]
    decomposed = [c for c in characters() if u.decomposition(chr(c)) and not u.decomposition(chr(c)).startswith('<')]
    second = sorted({int(u.decomposition(chr(c)).split()[-1], 16) for c in decomposed if len(u.decomposition(chr(c)).split()) == 2})
    first = sorted({int(u.decomposition(chr(c)).split()[0], 16) for c in decomposed})
    jamo = [*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A7, 0x11C3)]
    syllables = list(HANGUL)
    common = [0x301, 0x300, 0x327, 0x323, 0x308, 0x345, 0x338, 0x3099, 0x93C, 0x5B0, 0x61, 0x65, 0x20, 0x4E00, 0x1F600]
    pools = [marks, decomposed, second, first, jamo, syllables, common]
    fixed = ['\u00c5', 'A\u030a', '\u212b', 'e\u0301', '\u1100\u1161\u11a8', '\uac00\u11a8', '\u0344', '\u0958', '\u2126',
             '\ufb1d', 'q\u0307\u0323', '\u0d46\u0d3e', '\U0001d15e', 'a\u0315\u0300\u05ae\u0062', '\u09c7\u09be\u09d7']
    with open(path, 'w', encoding='ascii', newline='\n') as f:
        f.write(f'# text;NFC as code points, Unicode {u.unidata_version}, by generate_nfc.py\n')
        for i in range(500):
            if i < len(fixed):
                text = fixed[i]
            else:
                mixed = [rng.choice(pools) for _ in range(2)]
                text = ''.join(chr(rng.choice(rng.choice(mixed))) for _ in range(rng.randint(1, 9)))
            hexes = [' '.join(f'{ord(c):X}' for c in s) for s in (text, u.normalize('NFC', text))]
            f.write(';'.join(hexes) + '\n')
        # every character after a letter, then before a mark: one digest over all
        import hashlib
        for name, make in (('alone', lambda c: c), ('after-e', lambda c: 'e' + c), ('before-acute', lambda c: c + '\u0301'),
                           ('marks', lambda c: 'a\u0323' + c + '\u0301\u0327')):
            digest = hashlib.sha256()
            for c in characters():
                digest.update(u.normalize('NFC', make(chr(c))).encode() + b'\n')
            f.write(f'# sha256 {name} {digest.hexdigest()}\n')

write_data(sys.argv[1])
if '--vectors' in sys.argv:
    write_vectors(sys.argv[sys.argv.index('--vectors') + 1])
