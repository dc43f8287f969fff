using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Validation;

/// <summary>A perplexity and its standard error.</summary>
public sealed record PerplexityFigure(double Perplexity, double StandardError)
{
    /// <summary><c>exp(mean)</c> of negative log-likelihoods in nats, and <c>exp(mean)</c> times the mean's standard error.</summary>
    /// <exception cref="QuantException">Numeric: the perplexity exceeds the range of double.</exception>
    internal static PerplexityFigure From(MeanAccumulator losses, string role)
    {
        double perplexity = Math.Exp(losses.Mean);
        double standardError = losses.StandardError * perplexity;
        if (double.IsFinite(perplexity) && double.IsFinite(standardError)) return new PerplexityFigure(perplexity, standardError);
        throw new QuantException(ErrorKind.Numeric, $"the {role}'s perplexity is not a finite number")
        {
            Rule = NumericRules.FiniteActivations,
            Found = string.Create(CultureInfo.InvariantCulture, $"a mean loss of {losses.Mean} nats"),
        };
    }
}
