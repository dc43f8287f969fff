using System.CommandLine;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>The options that say how the next token is chosen; generation_config.json decides where they are not given.</summary>
internal sealed class SamplingOptionSet
{
    private readonly Option<double?> _temperature = new("--temperature") { Description = "0 takes the most probable token; generation_config.json decides by default", HelpName = "T" };
    private readonly Option<int?> _topK = new("--top-k") { Description = "Only so many of the most probable tokens; 0 for all", HelpName = "K" };
    private readonly Option<double?> _topP = new("--top-p") { Description = "Only the most probable tokens that together have this probability", HelpName = "P" };
    private readonly Option<double?> _repetitionPenalty = new("--repetition-penalty") { Description = "Divides the logits of tokens that occurred; 1 for none", HelpName = "R" };
    private readonly Option<ulong> _seed = new("--seed") { Description = "Seed of the sampling", HelpName = "N", DefaultValueFactory = _ => 0 };

    public void AddTo(Command command)
    {
        foreach (Option option in new Option[] { _temperature, _topK, _topP, _repetitionPenalty, _seed }) command.Options.Add(option);
    }

    /// <exception cref="QuantException">A value is out of range.</exception>
    public SamplingOptions Read(Session session, GenerationConfig config)
    {
        SamplingOptions options = SamplingOptions.From(config, session.Get(_seed));
        options = options with
        {
            Temperature = session.Parsed.GetValue(_temperature) ?? options.Temperature,
            TopK = session.Parsed.GetValue(_topK) ?? options.TopK,
            TopP = session.Parsed.GetValue(_topP) ?? options.TopP,
            RepetitionPenalty = session.Parsed.GetValue(_repetitionPenalty) ?? options.RepetitionPenalty,
        };
        return options.Problem is { } problem ? throw new QuantException(ErrorKind.Usage, $"--{problem}") : options;
    }
}
