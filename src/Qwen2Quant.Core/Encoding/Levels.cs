namespace Qwen2Quant.Core.Encoding;

/// <summary>
/// The values that codes stand for in one sub-block: <c>Step * (code - Zero) + Origin</c>, or <c>Step * Table[code]</c> with an ascending table.
/// A solver rounds with this alone and never knows the type.
/// </summary>
/// <param name="Origin">Added last; minus zero where a format adds nothing, which keeps the sign of a zero product.</param>
/// <param name="Zero">Code of the integer 0. Subtracting it before the product is what makes <see cref="Value"/> equal the decoder bit for bit.</param>
public readonly record struct Levels(float Origin, float Step, int CodeCount, int Zero = 0, float[]? Table = null)
{
    /// <summary>Levels without an origin: <c>step * (code - zero)</c>.</summary>
    public static Levels Scaled(float step, int codeCount, int zero) => new(-0f, step, codeCount, zero);

    public float Value(int code) => Table is null ? (Step * (code - Zero)) + Origin : Step * Table[code];

    /// <summary>The code whose value is nearest; the lower of two that are equally near. All codes of a zero step mean one value: the middle one is taken.</summary>
    public int Nearest(float value)
    {
        if (Step == 0) return CodeCount / 2;
        if (Table is null) return (int)Math.Clamp(MathF.Ceiling(((value - Origin) / Step) + (Zero - 0.5f)), 0, CodeCount - 1);
        int best = 0;
        for (int code = 1; code < Table.Length; code++)
        {
            if (MathF.Abs(Value(code) - value) < MathF.Abs(Value(best) - value)) best = code;
        }

        return best;
    }
}
