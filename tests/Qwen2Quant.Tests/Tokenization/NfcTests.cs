using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Model.Tokenization.Unicode;

namespace Qwen2Quant.Tests.Tokenization;

/// <summary>Normalization against Python's unicodedata, which wrote the vectors (generate_nfc.py).</summary>
public class NfcTests
{
    private static readonly string[] Lines = File.ReadAllLines(Path.Combine(TokenizerData.Folder, "nfc-vectors.txt"));

    [Fact]
    public void EveryVectorNormalizes()
    {
        Assert.Contains(NfcData.UnicodeVersion, Lines[0], StringComparison.Ordinal);
        int count = 0;
        foreach (string line in Lines.Where(line => !line.StartsWith('#')))
        {
            string[] sides = line.Split(';');
            string expected = FromCodePoints(sides[1]);
            Assert.Equal(expected, Normalize(FromCodePoints(sides[0])));
            Assert.Equal(expected, Normalize(expected));
            count++;
        }

        Assert.Equal(500, count);
    }

    [Theory]
    [InlineData("alone", "", "")]
    [InlineData("after-e", "e", "")]
    [InlineData("before-acute", "", "\u0301")]
    [InlineData("marks", "a\u0323", "\u0301\u0327")]
    public void EveryCharacterNormalizesInContext(string name, string before, string after)
    {
        using IncrementalHash digest = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        for (int character = 0; character < 0x110000; character++)
        {
            if (!Rune.IsValid(character)) continue;
            digest.AppendData(Encoding.UTF8.GetBytes(Normalize(before + new Rune(character) + after) + "\n"));
        }

        string expected = Lines.Single(line => line.StartsWith($"# sha256 {name} ", StringComparison.Ordinal)).Split(' ')[3];
        Assert.Equal(expected, Convert.ToHexStringLower(digest.GetHashAndReset()));
    }

    [Theory]
    [InlineData("plain ASCII\n")]
    [InlineData("Führer ½ à la carte")]
    [InlineData("中文字符，かな 한글 😀")]
    [InlineData("हिन्दी ไทย ก่ำ")]
    public void NormalizedTextIsLeftAlone(string text)
    {
        GrowingBuffer<byte> output = new(16);
        Assert.False(Nfc.TryNormalize(Encoding.UTF8.GetBytes(text), output));
        Assert.Equal(0, output.Count);
    }

    [Fact]
    public void LongRunsOfMarksAreOrderedStably()
    {
        string text = "e" + string.Concat(Enumerable.Repeat("\u0301\u0323\u0300\u0327", 25_000));
        string expected = "\u0229" + string.Concat(Enumerable.Repeat("\u0327", 24_999)) + new string('\u0323', 25_000) + string.Concat(Enumerable.Repeat("\u0301\u0300", 25_000));
        Assert.Equal(expected, Normalize(text));
    }

    private static string Normalize(string text)
    {
        byte[] utf8 = Encoding.UTF8.GetBytes(text);
        GrowingBuffer<byte> output = new(16);
        return Nfc.TryNormalize(utf8, output) ? Encoding.UTF8.GetString(output.Span) : text;
    }

    private static string FromCodePoints(string hexes) =>
        string.Concat(hexes.Split(' ').Select(hex => char.ConvertFromUtf32(int.Parse(hex, NumberStyles.HexNumber, CultureInfo.InvariantCulture))));
}
