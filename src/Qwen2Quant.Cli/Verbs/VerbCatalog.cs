using System.CommandLine;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>Runs the body of a verb inside a session and turns failures into exit codes.</summary>
internal delegate int VerbRunner(ParseResult parsed, Func<Session, int> verb);

/// <summary>Every verb, in the order of the help.</summary>
internal static class VerbCatalog
{
    public static IReadOnlyList<Func<VerbRunner, Command>> All { get; } =
    [
        InspectVerb.Create,
        ConvertVerb.Create,
        QuantizeVerb.Create,
        RepackVerb.Create,
        DequantizeVerb.Create,
        PadVerb.Create,
        MergeVerb.Create,
        SplitVerb.Create,
        CalibrateVerb.Create,
        PerplexityVerb.Create,
        CompareVerb.Create,
        VerifyVerb.Create,
        GenerateVerb.Create,
        TokenizeVerb.Create,
        TypesVerb.Create,
        BenchVerb.Create,
        BatchVerb.Create,
        CompletionVerb.Create,
    ];
}
