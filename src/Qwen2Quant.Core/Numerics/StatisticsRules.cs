using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Core.Numerics;

/// <summary>What statistics of activations must satisfy before they weigh anything.</summary>
public static class StatisticsRules
{
    public static readonly Rule InactiveChannels = new("NU-89", "a channel that was never active weighs 0, and its column still encodes to finite values");
    public static readonly Rule Damping = new("NU-90", "a Hessian that is not positive definite is damped more, in recorded steps");
    public static readonly Rule Usable = new("NU-91", "statistics are finite, not negative, counted, and those of this model in its widths");
    public static readonly Rule ExpertsSeen = new("NU-92", "every expert saw tokens; one that saw none weighs all its columns alike");

    public static IReadOnlyList<Rule> All { get; } = [InactiveChannels, Damping, Usable, ExpertsSeen];
}
