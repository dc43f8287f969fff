#!/usr/bin/env python3
"""Writes Codebooks.Data.cs from a JSON file of the expanded grids ({"IQ2_XXS": {"values": [[...], ...]}, ...}).

Usage: make-codebooks.py GRIDS.json > Codebooks.Data.cs
"""
import json
import sys

BOOKS = [
    ("Iq2XxsCodes", "IQ2_XXS", [8, 25, 43]),
    ("Iq2XsCodes", "IQ2_XS", [8, 25, 43]),
    ("Iq2SCodes", "IQ2_S", [8, 25, 43]),
    ("Iq3XxsCodes", "IQ3_XXS", [4, 12, 20, 28, 36, 44, 52, 62]),
    ("Iq3SCodes", "IQ3_S", [1, 3, 5, 7, 9, 11, 13, 15]),
    ("Iq1Codes", "IQ1_S", [-1, 0, 1]),
]
PER_LINE = 24
HEADER = """// Written by make-codebooks.py from ggml's grids; do not edit.
//
// The grids of the IQ1, IQ2 and IQ3 types are tables of ggml (ggml-common.h: iq2xxs_grid, iq2xs_grid, iq2s_grid, iq3xxs_grid, iq3s_grid,
// iq1s_grid), here in the compact form of its quantizers: a word a row, a field an element. They come under its licence:
//
// MIT License. Copyright (c) 2023-2026 The ggml authors
// Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files
// (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge,
// publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do
// so, subject to the following conditions: The above copyright notice and this permission notice shall be included in all copies or
// substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
// BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
// OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

namespace Qwen2Quant.Formats.Gguf.Blocks;

internal static partial class Codebooks
{"""


def main():
    grids = json.load(open(sys.argv[1], encoding="utf-8"))
    print(HEADER)
    for number, (name, grid, levels) in enumerate(BOOKS):
        bits = 3 if len(levels) > 4 else 2
        codes = [sum(levels.index(v) << (bits * i) for i, v in enumerate(row)) for row in grids[grid]["values"]]
        if number:
            print()
        print(f"    private static ReadOnlySpan<ushort> {name} =>\n    [")
        for start in range(0, len(codes), PER_LINE):
            print("        " + ", ".join(map(str, codes[start:start + PER_LINE])) + ",")
        print("    ];")
    print("}")


main()
