using System.Globalization;
using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>A GPTQ scheme as <c>--to</c> spells it: <c>gptq:w4g128[-asym][-actorder|-descact][-v2]</c>.</summary>
/// <param name="Bits">2, 3, 4 or 8.</param>
/// <param name="GroupSize">Inputs of a group, 32, 64 or 128; -1 for whole rows.</param>
/// <param name="IsV2">Stores zeros as they are (<c>gptq_v2</c>), not less one.</param>
public sealed partial record GptqScheme(int Bits, int GroupSize, bool IsSymmetric = true, ColumnVisits Order = ColumnVisits.Natural, bool IsV2 = false) : PackedScheme
{
    public const string Prefix = "gptq:";

    /// <summary>What there is, for messages.</summary>
    public const string Forms = "gptq:w4g128[-asym][-actorder|-descact][-v2] with 2, 3, 4 or 8 bits and groups of 32, 64, 128 or -1 (whole rows)";

    public override PackedLayout Layout => new GptqLayout(IsV2);

    public override string DefaultMethod => "gptq";

    public override int GroupSize { get; } = GroupSize;

    public override ColumnVisits Visits => Order;

    public override ElementType? BiasType => PlainTypes.F16;

    private protected override bool RunsInTransformers => true;

    public override IEnumerable<string> ReaderNotes
    {
        get
        {
            if (Bits is 2 or 3) yield return "vLLM and SGLang read 4 and 8 bits only";
            if (!IsSymmetric) yield return "current vLLM and SGLang read symmetric checkpoints only";
            if (IsV2) yield return "text-generation-inference, TensorRT-LLM and OpenVINO take zeros for those of version 1";
        }
    }

    public override GptqScheme OfModule(string text)
    {
        Match match = ModuleForm().Match(text.ToLowerInvariant());
        if (!match.Success) throw new QuantException(ErrorKind.Usage, "there is no such type of a module") { Found = text, Expected = "plain, or w4g128[-asym] with 2, 3, 4 or 8 bits and groups of 32, 64, 128 or -1 (whole rows)" };
        return new GptqScheme(Number(match, "bits"), Number(match, "group"), !match.Groups["asym"].Success, Order, IsV2);
    }

    /// <inheritdoc cref="PackedScheme.Parse"/>
    public static new GptqScheme? Parse(string text)
    {
        if (!text.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase)) return null;
        Match match = Form().Match(text[Prefix.Length..].ToLowerInvariant());
        if (!match.Success) throw new QuantException(ErrorKind.Usage, "there is no such scheme") { Found = text, Expected = Forms };
        ColumnVisits order = match.Groups["order"].Value switch { "-actorder" => ColumnVisits.Activation, "-descact" => ColumnVisits.PermutedGroups, _ => ColumnVisits.Natural };
        return new GptqScheme(
            Number(match, "bits"),
            Number(match, "group"),
            !match.Groups["asym"].Success,
            order,
            match.Groups["v2"].Success);
    }

    /// <summary>The element type of a matrix with rows of that length; null where they are not whole words.</summary>
    public override IntegerGridType? TypeFor(long rowLength, ElementType plain, Magnitudes largest) =>
        GroupIn(rowLength, BitFields.WordRun) is { } group ? IntegerGridType.Of(Bits, group, IsSymmetric, PlainTypes.F16, IsV2 ? 0 : 1) : null;

    public override string ToString()
    {
        string order = Order switch { ColumnVisits.Activation => "-actorder", ColumnVisits.PermutedGroups => "-descact", _ => "" };
        return string.Create(CultureInfo.InvariantCulture, $"{Prefix}w{Bits}g{GroupSize}{(IsSymmetric ? "" : "-asym")}{order}{(IsV2 ? "-v2" : "")}");
    }

    private static int Number(Match match, string group) => int.Parse(match.Groups[group].ValueSpan, CultureInfo.InvariantCulture);

    [GeneratedRegex("^w(?<bits>[2348])g(?<group>32|64|128|-1)(?<asym>-asym)?(?<order>-actorder|-descact)?(?<v2>-v2)?$", RegexOptions.CultureInvariant)]
    private static partial Regex Form();

    [GeneratedRegex("^w(?<bits>[2348])g(?<group>32|64|128|-1)(?<asym>-asym)?$", RegexOptions.CultureInvariant)]
    private static partial Regex ModuleForm();
}
