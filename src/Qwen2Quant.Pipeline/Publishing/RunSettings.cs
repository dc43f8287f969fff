using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Publishing;

/// <summary>
/// What decides an output's bytes, by name: runs with equal settings write the same. An interrupted run is taken up, and a finished one left alone, only where all are equal.
/// </summary>
internal static class RunSettings
{
    private const int HashLength = 64;

    /// <summary>Those of a conversion; what a solver adds is not here.</summary>
    public static Dictionary<string, string> Of(Checkpoint source, ConversionPlan plan, ConversionOptions options)
    {
        StringBuilder types = new(), files = new();
        foreach (PlanItem item in plan.Items)
        {
            types.Append(CultureInfo.InvariantCulture, $"{item.Name} {item.Target.Tensor.Type.Name} {item.Target.Tensor.Shape}");
            foreach (TensorEntry part in item.Parts) types.Append(' ').Append(part.Name).Append(' ').Append(part.Type.Name);
            types.Append('\n');
        }

        foreach (PlannedFile file in plan.Files) files.Append(CultureInfo.InvariantCulture, $"{file.Name} {file.ByteLength} {Hash(file.Header)}\n");
        foreach (CompanionFile file in plan.Companions) files.Append(CultureInfo.InvariantCulture, $"{file.Name} {Hash(file.Bytes)}\n");
        return new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["version"] = Conversion.Version,
            ["source"] = Hash(source.Identity),
            ["scheme"] = options.Scheme,
            ["effort"] = options.Effort.ToString().ToLowerInvariant(),
            ["method"] = options.Method,
            ["statistics"] = plan.Statistics,
            ["types"] = Hash(types.ToString()),
            ["files"] = Hash(files.ToString()),
        };
    }

    /// <summary>The first of the settings that differ, in words; null when none does.</summary>
    public static string? Difference(IReadOnlyDictionary<string, string> found, IReadOnlyDictionary<string, string> expected)
    {
        foreach (string name in expected.Keys.Concat(found.Keys).Distinct())
        {
            string? left = found.GetValueOrDefault(name), asked = expected.GetValueOrDefault(name);
            if (left == asked) continue;
            return name switch
            {
                "source" => "the source was another, or has changed",
                "files" => "other metadata or files of the model",
                _ when left is null or { Length: HashLength } || asked is null or { Length: HashLength } => $"another {name}",
                _ => $"{name} {left} instead of {asked}",
            };
        }

        return null;
    }

    public static string Hash(string text) => Hash(Encoding.UTF8.GetBytes(text));

    public static string Hash(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));
}
