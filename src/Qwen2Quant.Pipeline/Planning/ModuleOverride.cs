using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary><c>--tensor-type PATTERN=TYPE</c> for packed folders: a regular expression searched in the lower-cased tensor name; the first that matches wins.</summary>
/// <param name="Scheme">Null keeps the modules plain.</param>
public sealed record ModuleOverride(Regex Pattern, PackedScheme? Scheme)
{
    private const string Plain = "plain";

    /// <exception cref="QuantException">A usage error.</exception>
    public static ModuleOverride Parse(string text, PackedScheme scheme)
    {
        (Regex pattern, string type) = TensorTypeOverride.Split(text);
        return new ModuleOverride(pattern, type.Equals(Plain, StringComparison.OrdinalIgnoreCase) ? null : scheme.OfModule(type));
    }
}
