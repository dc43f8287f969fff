using System.Globalization;
using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>In which order GPTQ visits inputs, and what of it a checkpoint shows.</summary>
public enum GptqOrder
{
    /// <summary>As they lie.</summary>
    Natural,

    /// <summary>By activation, in groups that stay where they are: the file looks as without.</summary>
    Activation,

    /// <summary>By activation, and groups are formed in that order: <c>desc_act</c>, a permuted <c>g_idx</c>.</summary>
    PermutedGroups,
}

/// <summary>A GPTQ scheme as <c>--to</c> spells it: <c>gptq:w4g128[-asym][-actorder|-descact][-v2]</c>.</summary>
/// <param name="Bits">2, 3, 4 or 8.</param>
/// <param name="GroupSize">Inputs of a group, 32, 64 or 128; -1 for whole rows.</param>
/// <param name="IsV2">Stores zeros as they are (<c>gptq_v2</c>), not less one.</param>
public sealed partial record GptqScheme(int Bits, int GroupSize, bool IsSymmetric = true, GptqOrder Order = GptqOrder.Natural, bool IsV2 = false)
{
    public const string Prefix = "gptq:";

    /// <summary>What there is, for messages.</summary>
    public const string Forms = "gptq:w4g128[-asym][-actorder|-descact][-v2] with 2, 3, 4 or 8 bits and groups of 32, 64, 128 or -1 (whole rows)";

    /// <summary>The scheme that a text names, in any case; null when it does not begin as one.</summary>
    /// <exception cref="QuantException">It begins as one and is none.</exception>
    public static GptqScheme? Parse(string text)
    {
        if (!text.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase)) return null;
        Match match = Form().Match(text[Prefix.Length..].ToLowerInvariant());
        if (!match.Success) throw new QuantException(ErrorKind.Usage, "there is no such scheme") { Found = text, Expected = Forms };
        GptqOrder order = match.Groups["order"].Value switch { "-actorder" => GptqOrder.Activation, "-descact" => GptqOrder.PermutedGroups, _ => GptqOrder.Natural };
        return new GptqScheme(
            int.Parse(match.Groups["bits"].ValueSpan, CultureInfo.InvariantCulture),
            int.Parse(match.Groups["group"].ValueSpan, CultureInfo.InvariantCulture),
            !match.Groups["asym"].Success,
            order,
            match.Groups["v2"].Success);
    }

    /// <summary>The element type of a matrix with rows of that length; null where they are not whole words.</summary>
    public IntegerGridType? TypeFor(long rowLength)
    {
        long group = GroupSize == -1 ? rowLength : GroupSize;
        return group is 0 or > int.MaxValue || group % BitFields.WordRun != 0 ? null : IntegerGridType.Of(Bits, (int)group, IsSymmetric, PlainTypes.F16, IsV2 ? 0 : 1);
    }

    public override string ToString()
    {
        string order = Order switch { GptqOrder.Activation => "-actorder", GptqOrder.PermutedGroups => "-descact", _ => "" };
        return string.Create(CultureInfo.InvariantCulture, $"{Prefix}w{Bits}g{GroupSize}{(IsSymmetric ? "" : "-asym")}{order}{(IsV2 ? "-v2" : "")}");
    }

    [GeneratedRegex("^w(?<bits>[2348])g(?<group>32|64|128|-1)(?<asym>-asym)?(?<order>-actorder|-descact)?(?<v2>-v2)?$", RegexOptions.CultureInvariant)]
    private static partial Regex Form();
}
