using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.LlamaCpp;

/// <summary>A fact that needs llama.cpp; skipped, visibly, without it.</summary>
public sealed class LlamaFactAttribute : FactAttribute
{
    /// <summary>True when the shared data are needed as well.</summary>
    public bool Shared { get; set; }

    public override string? Skip
    {
        get => base.Skip ?? Missing.Reason(Shared);
        set => base.Skip = value;
    }
}

/// <summary>A theory with the needs of <see cref="LlamaFactAttribute"/>.</summary>
public sealed class LlamaTheoryAttribute : TheoryAttribute
{
    /// <summary>True when the shared data are needed as well.</summary>
    public bool Shared { get; set; }

    public override string? Skip
    {
        get => base.Skip ?? Missing.Reason(Shared);
        set => base.Skip = value;
    }
}

/// <summary>A fact that needs the tokenizer of Qwen2.5; skipped, visibly, without it.</summary>
public sealed class Qwen25TokenizerFactAttribute : FactAttribute
{
    public Qwen25TokenizerFactAttribute()
    {
        if (InteropPackages.Qwen25Tokenizer is null) Skip = "needs the tokenizer of Qwen2.5: npm ci --ignore-scripts in tests/Qwen2Quant.EndToEnd/interop";
    }
}

internal static class Missing
{
    public static string? Reason(bool shared)
    {
        if (InteropPackages.LlamaLibraries is null) return "needs llama.cpp: npm ci --ignore-scripts in tests/Qwen2Quant.EndToEnd/interop";
        return shared && SharedData.Root is null ? "needs the shared data folder (QWEN2QUANT_SHARED)" : null;
    }
}
