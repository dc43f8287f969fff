using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Core.Numerics;

/// <summary>What values must satisfy before they are encoded, and while a model runs.</summary>
public static class NumericRules
{
    public static readonly Rule NoNan = new("NU-79", "weights hold no NaN");
    public static readonly Rule NoInfinity = new("NU-80", "weights hold no infinity");
    public static readonly Rule WithinRange = new("NU-82", "values lie within the range of the type they are written as");
    public static readonly Rule ScaleWithinRange = new("NU-84", "the scales of blocks lie within the range of their stored type");

    public static readonly Rule FiniteActivations = new("NU-95", "activations and the logits that are scored or chosen from are finite");

    public static IReadOnlyList<Rule> All { get; } = [NoNan, NoInfinity, WithinRange, ScaleWithinRange, FiniteActivations];
}
