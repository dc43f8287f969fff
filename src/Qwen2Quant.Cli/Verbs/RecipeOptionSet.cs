using System.CommandLine;
using Qwen2Quant.Pipeline.Quantizing;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>The scheme of a quantization and the options that change which types tensors get.</summary>
internal sealed class RecipeOptionSet
{
    private readonly Option<string> _to = new("--to") { Description = "Scheme of the output, for example gguf:Q4_K_M (or gguf with --recipe) or gptq:w4g128; `types` lists them", HelpName = "SCHEME", Required = true };
    private readonly Option<string?> _recipe = new("--recipe") { Description = "Take the types from a recipe file; `types --recipe NAME` prints one to start from", HelpName = "FILE" };
    private readonly Option<bool> _pure = new("--pure") { Description = "The scheme's plain type for every matrix, no mixture" };
    private readonly Option<string?> _outputType = new("--output-type") { Description = "Type of the output matrix", HelpName = "TYPE" };
    private readonly Option<string?> _embeddingType = new("--embedding-type") { Description = "Type of the token embedding", HelpName = "TYPE" };
    private readonly Option<bool> _leaveOutput = new("--leave-output-tensor") { Description = "Leave output.weight in the source's type" };
    private readonly Option<string[]> _tensorType = new("--tensor-type") { Description = "Type of the tensors whose lower-cased name in the output a regular expression finds, for example attn_v=Q8_0, or for a folder mlp.down_proj=w8g128 or self_attn=plain; repeatable, the first match wins", HelpName = "PATTERN=TYPE" };
    private readonly Option<bool> _allowRequantize = new("--allow-requantize") { Description = "Quantize a source that is quantized already" };
    private readonly Option<bool> _keepSplit = new("--keep-split") { Description = "Split the output where the source is split" };
    private readonly Option<string[]> _overrideKv = new("--override-kv") { Description = "Set a metadata key; TYPE is int, float, bool or str; repeatable", HelpName = "KEY=TYPE:VALUE" };

    public void AddTo(Command command)
    {
        foreach (Option option in new Option[] { _to, _recipe, _pure, _outputType, _embeddingType, _leaveOutput, _tensorType, _allowRequantize, _keepSplit, _overrideKv }) command.Options.Add(option);
    }

    /// <summary>The scheme that is asked for, unread.</summary>
    public string Scheme(Session session) => session.Get(_to);

    /// <summary>Adds what was said.</summary>
    public QuantizationChoices Read(Session session, QuantizationChoices choices) => choices with
    {
        Recipe = session.Parsed.GetValue(_recipe),
        Pure = session.Get(_pure),
        OutputType = session.Parsed.GetValue(_outputType),
        EmbeddingType = session.Parsed.GetValue(_embeddingType),
        LeaveOutputTensor = session.Get(_leaveOutput),
        TensorType = session.Get(_tensorType) ?? [],
        AllowRequantize = session.Get(_allowRequantize),
        KeepSplit = session.Get(_keepSplit),
        OverrideKv = session.Get(_overrideKv) ?? [],
    };
}
