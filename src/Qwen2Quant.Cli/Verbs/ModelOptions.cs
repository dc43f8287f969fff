using System.CommandLine;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>Arguments and options that several verbs share in name and meaning.</summary>
internal static class ModelOptions
{
    public const string ModelHelp = "Folder, .gguf file (any part of a split one), org/name[@revision] in the Hugging Face cache, or builtin:tiny";
    public const string TextHelp = "UTF-8 file, - for standard input, builtin:text (held-out prose) or builtin:calibration";

    /// <summary>One option for every verb that runs a model; <see cref="Session"/> reads it.</summary>
    public static Option<string?> Memory { get; } = new("--memory")
    {
        Description = "Memory for the whole program, for example 4GB: weights that do not fit are read layer by layer; results do not depend on it [default: three quarters of the machine's]",
        HelpName = "SIZE",
    };

    /// <summary>As <see cref="Memory"/>.</summary>
    public static Option<bool> Exact { get; } = new("--exact") { Description = "Multiply quantized weights as floats too; otherwise activations are rounded to 15 bits for each 32 values, which is faster" };

    public static Argument<string> Model(string name = "MODEL") => new(name) { Description = ModelHelp };

    public static Option<string> Out() => new("--out", "-o") { Description = "Path of the output", HelpName = "PATH", Required = true };

    /// <summary>See <see cref="DualChunkAttention"/>.</summary>
    public static Option<string?> DualChunk() => new("--dual-chunk")
    {
        Description = "Dual chunk attention for texts beyond the trained length: greatest position, and tokens exact across a border of chunks [default: an eighth]; as dual_chunk_attention_config, which it replaces",
        HelpName = "SIZE[,LOCAL]",
    };

    /// <summary>Opens a model, with what <see cref="DualChunk"/> says.</summary>
    public static Checkpoint Open(Session session, Argument<string> model, Option<string?> dualChunk)
    {
        DualChunkAttention? chunks = session.Parsed.GetValue(dualChunk) is { } text ? DualChunkAttention.Parse(text) : null;
        Checkpoint checkpoint = Checkpoint.Open(session.Get(model), session.Context);
        try
        {
            if (chunks is not null) checkpoint.AttendIn(chunks);
            return checkpoint;
        }
        catch
        {
            checkpoint.Dispose();
            throw;
        }
    }

    public static Option<bool> Force() => new("--force") { Description = "Replace an existing output" };

    public static Option<bool> Resume() => new("--resume") { Description = "Go on where an interrupted run with the same options ended; an output that one finished is left alone" };

    public static Option<string?> SaveLogits(string whose) => new("--save-logits")
    {
        Description = $"Also write {whose} logits as llama-perplexity's base file (--kl-divergence-base), 16 bits each; --force replaces an existing one",
        HelpName = "FILE",
    };

    /// <summary>What <see cref="SaveLogits"/> and <see cref="Force"/> say; null for no file.</summary>
    public static LogitTarget? LogitTarget(Session session, Option<string?> saveLogits, Option<bool> force)
    {
        if (session.Parsed.GetValue(saveLogits) is { } path) return new LogitTarget(path, session.Get(force));
        return session.Get(force) ? throw new QuantException(ErrorKind.Usage, "--force is for --save-logits") : null;
    }

    public static Option<bool> Strict() => new("--strict") { Description = "Refuse substitutions: types other than asked for, importance of experts that saw no tokens (exit code 5)" };

    public static Option<bool> Activations() => new("--activations") { Description = "Also report the largest input of each linear layer, with a warning where half precision would overflow" };

    public static Option<bool> DryRun() => new("--dry-run") { Description = "Print the plan: every tensor's type, the exact size, substitutions; write nothing" };

    public static Option<string[]> FailAbove() => new("--fail-above")
    {
        Description = "Exit with code 4 when a figure of the comparison exceeds a limit, for example mean_kld=0.1; repeatable",
        HelpName = "KEY=LIMIT",
        AllowMultipleArgumentsPerToken = false,
    };

    public static Option<string[]> FailBelow() => new("--fail-below")
    {
        Description = "As --fail-above for figures that are better when larger, for example top_token_agreement=0.9",
        HelpName = "KEY=LIMIT",
        AllowMultipleArgumentsPerToken = false,
    };
}
