using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>The options of the verbs that write a model as it is planned, and their end: the conversion is run and its report printed.</summary>
internal sealed class ConversionOptionSet
{
    private readonly Option<string> _shardSize = new("--max-shard-size") { Description = "Most bytes of tensors in one safetensors file, for example 5GB or 500MB", HelpName = "SIZE", DefaultValueFactory = _ => "5GB" };
    private readonly Option<bool> _force = ModelOptions.Force();
    private readonly Option<bool> _resume = ModelOptions.Resume();
    private readonly Option<bool> _strict = ModelOptions.Strict();
    private readonly Option<bool> _dryRun = ModelOptions.DryRun();

    /// <param name="hasSubstitutions">Whether a plan can hold substitutions for <c>--strict</c> to refuse.</param>
    public void AddTo(Command command, bool hasSubstitutions)
    {
        foreach (Option option in new Option[] { _shardSize, _force, _resume, _dryRun }) command.Options.Add(option);
        if (hasSubstitutions) command.Options.Add(_strict);
    }

    public long MaxShardBytes(Session session) => Sizes.Parse(session.Get(_shardSize), _shardSize.Name);

    /// <returns>The exit code.</returns>
    public int Run(Session session, Checkpoint source, ConversionPlan plan, string scheme, Effort effort)
    {
        ConversionOptions options = new(scheme, session.Get(_force), session.Get(_strict), session.Get(_dryRun), effort, Resume: session.Get(_resume));
        using Conversion conversion = new(source, plan, options, session.Context);
        ConversionReport report = conversion.Run();
        session.Print(report, ReportJson.Default.ConversionReport, writer => ConversionText.Write(writer, report));
        return ExitCodes.Done;
    }
}
