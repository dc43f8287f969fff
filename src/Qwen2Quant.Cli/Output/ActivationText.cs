using System.Globalization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Output;

/// <summary>The largest activations, as text; all of them are in the JSON.</summary>
internal static class ActivationText
{
    private const int Shown = 5;

    /// <param name="of">Whose they are, after "of"; null where there is one model.</param>
    public static void Write(TextWriter output, IReadOnlyList<ActivationMaximum>? maxima, string? of = null)
    {
        if (maxima is null) return;
        output.WriteLine($"largest inputs of linear layers{(of is null ? "" : $" of {of}")} (half precision holds {Format.Number(ActivationMaximum.LargestHalf, "0")}):");
        foreach (ActivationMaximum maximum in maxima.OrderByDescending(maximum => maximum.MaxAbs).Take(Shown))
        {
            string place = maximum.Window is { } window ? string.Create(CultureInfo.InvariantCulture, $", window {window}, position {maximum.Position}") : "";
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {maximum.MaxAbs,9:0.###}  {maximum.Name}, channel {maximum.Channel}{place}"));
        }
    }
}
