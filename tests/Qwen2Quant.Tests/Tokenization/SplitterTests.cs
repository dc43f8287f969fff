using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Tests.Tokenization;

/// <summary>The splitter against .NET's regular expressions, which match UTF-16 units: supplementary characters are replaced by ones of their class first.</summary>
public class SplitterTests
{
    private static readonly Regex Expression = new(PreTokenizers.Qwen2Expression, RegexOptions.CultureInvariant);

    [Theory]
    [InlineData("Hello, y'all! I'LL don't  go\n\n  on", "Hello|,| y|'all|!| I|'LL| don|'t| | go|\n\n| | on")]
    [InlineData("  \n \t\r\n  x", "  \n \t\r\n| | x")]
    [InlineData("3333 ½", "3|3|3|3| |½")]
    [InlineData("'s's 're'x", "'s|'s| '|re|'x")]
    [InlineData("!!\n\n!  ", "!!\n\n|!|  ")]
    public void SplitsAsWritten(string text, string expected) => Assert.Equal(expected, string.Join('|', Split(text)));

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void AgreesWithTheExpression(int seed)
    {
        Random random = new(seed);
        for (int round = 0; round < 4000; round++)
        {
            string text = round % 2 == 0 ? TokenizerData.RandomText(random, 24) : RandomCharacters(random);
            string[] expected = [.. Expression.Matches(ToBasicPlane(text)).Select(match => match.Value)];
            string[] actual = [.. Split(text)];
            Assert.Equal(text, string.Concat(actual));
            Assert.True(expected.SequenceEqual(actual.Select(ToBasicPlane)), $"seed {seed}, round {round}: {TokenDisplay.Escape(Encoding.UTF8.GetBytes(text))}");
        }
    }

    private static IEnumerable<string> Split(string text)
    {
        byte[] utf8 = Encoding.UTF8.GetBytes(text);
        for (int start = 0; start < utf8.Length;)
        {
            int end = Qwen2Splitter.NextPieceEnd(utf8, start);
            yield return Encoding.UTF8.GetString(utf8.AsSpan(start..end));
            start = end;
        }
    }

    private static string RandomCharacters(Random random)
    {
        const string Frequent = " \n\r\t'sStTrReEvVmMlLdD19.,-aé中\u00a0";
        StringBuilder text = new();
        for (int left = random.Next(20); left > 0; left--)
        {
            int character = random.Next(4) == 0 ? random.Next(0x20000) : Frequent[random.Next(Frequent.Length)];
            if (Rune.IsValid(character)) text.Append(new Rune(character).ToString());
        }

        return text.ToString();
    }

    private static string ToBasicPlane(string text) => string.Concat(text.EnumerateRunes().Select(rune =>
        rune.IsBmp ? rune.ToString()
        : Rune.IsLetter(rune) ? "字"
        : Rune.GetUnicodeCategory(rune) is UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber ? "7"
        : "§"));
}
