using System.Globalization;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>
/// Whole numbers, as recipes write them: <c>8</c>, <c>4..</c>, <c>..2</c>, <c>1/8..7/8</c> (the end is excluded), several with commas.
/// A bound may be a fraction of the model's layers, rounded down; <c>more</c> stands for the layers that llama-quantize's
/// <c>_M</c> mixtures favour: the first and the last eighth and every third between them.
/// </summary>
public sealed class NumberRange
{
    private const string Favoured = "more";
    private readonly List<(Bound From, Bound To)> _intervals = [];
    private bool _hasFavoured;

    private NumberRange(string text) => Text = text;

    /// <summary>The range as it was written.</summary>
    public string Text { get; }

    /// <summary>The range that <paramref name="text"/> spells, or null.</summary>
    public static NumberRange? TryParse(string text)
    {
        NumberRange range = new(text);
        foreach (string part in text.Split(',', StringSplitOptions.TrimEntries))
        {
            string[] ends = part.Split("..");
            if (part == Favoured) range._hasFavoured = true;
            else if (ends.Length == 1 && TryParseWhole(part, out int number) && number < int.MaxValue) range._intervals.Add((new Bound(number), new Bound(number + 1)));
            else if (ends.Length == 2 && part != ".." && Bound.TryParse(ends[0], new Bound(0), out Bound from) && Bound.TryParse(ends[1], new Bound(int.MaxValue), out Bound to)) range._intervals.Add((from, to));
            else return null;
        }

        return range;
    }

    /// <summary>True for a number of the range, in a model of <paramref name="layerCount"/> layers.</summary>
    public bool Contains(int number, int layerCount) =>
        (_hasFavoured && IsFavoured(number, layerCount)) || _intervals.Exists(interval => number >= interval.From.Of(layerCount) && number < interval.To.Of(layerCount));

    private static bool IsFavoured(int layer, int layerCount)
    {
        int eighth = layerCount / 8;
        return layer < eighth || layer >= 7 * layerCount / 8 || (layer - eighth) % 3 == 2;
    }

    private static bool TryParseWhole(string text, out int number) => int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);

    /// <param name="Denominator">0 for a number of its own.</param>
    private readonly record struct Bound(int Numerator, int Denominator = 0)
    {
        public static bool TryParse(string text, Bound missing, out Bound bound)
        {
            bound = missing;
            if (text.Length == 0) return true;
            string[] terms = text.Split('/');
            if (terms.Length > 2 || !TryParseWhole(terms[0], out int numerator)) return false;
            int denominator = 0;
            if (terms.Length == 2 && (!TryParseWhole(terms[1], out denominator) || denominator == 0)) return false;
            bound = new Bound(numerator, denominator);
            return true;
        }

        public long Of(int layerCount) => Denominator == 0 ? Numerator : (long)Numerator * layerCount / Denominator;
    }
}
