using System.Text.Json.Serialization;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>One matrix whose codes are chosen: where its bytes are, and what they lost.</summary>
/// <param name="Name">Canonical name.</param>
/// <param name="Solver">The method's name, or the fallback's.</param>
/// <param name="Damping">Share of the mean diagonal that was added to the Hessian's.</param>
/// <param name="TokensSeen">Tokens behind its Hessian.</param>
/// <param name="Before">Error of plain rounding with the diagonal as importance, under the Hessian.</param>
/// <param name="After">Error of what was chosen.</param>
/// <param name="Square">Of zeros.</param>
/// <param name="ByteOffset">In the file of its group.</param>
/// <param name="ColumnOrder">The column of the matrix at each place of its rows; null where they lie in their order.</param>
internal sealed record SolvedPart(
    string Name, string Solver, double? Damping, long TokensSeen, double Before, double After, double Square, ErrorSumsRecord Sums, long ByteOffset, long ByteLength, int[]? ColumnOrder = null)
{
    [JsonIgnore]
    public GptqErrors Errors => new(Before, After, Square);
}

/// <summary>An <see cref="ErrorSums"/> on its way through JSON.</summary>
internal sealed record ErrorSumsRecord(double SquaredError, double SquaredValue, long ValueCount)
{
    [JsonIgnore]
    public double Rmse => ValueCount == 0 ? 0 : Math.Sqrt(SquaredError / ValueCount);

    [JsonIgnore]
    public double RelativeError => SquaredError == 0 ? 0 : Math.Sqrt(SquaredError / SquaredValue);

    public static ErrorSumsRecord operator +(ErrorSumsRecord left, ErrorSumsRecord right) =>
        new(left.SquaredError + right.SquaredError, left.SquaredValue + right.SquaredValue, left.ValueCount + right.ValueCount);

    public static ErrorSumsRecord Of(ErrorSums sums) => new(sums.SquaredError, sums.SquaredValue, sums.ValueCount);
}

/// <summary>The matrices of one input in the order of their bytes.</summary>
/// <param name="Checksum">Of all bytes.</param>
internal sealed record SolvedGroup(IReadOnlyList<SolvedPart> Parts, ulong Checksum);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, WriteIndented = true)]
[JsonSerializable(typeof(SolvedGroup))]
[JsonSerializable(typeof(IReadOnlyList<FoldedScales>))]
internal sealed partial class SolvingJson : JsonSerializerContext;
