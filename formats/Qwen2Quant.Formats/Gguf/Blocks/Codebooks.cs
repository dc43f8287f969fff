namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>The codebooks of the IQ1, IQ2 and IQ3 types, expanded when first used. Two threads may both expand one; either result serves.</summary>
internal static partial class Codebooks
{
    /// <summary>ggml's <c>IQ1S_DELTA</c>.</summary>
    public const float Iq1Delta = 0.125f;

    private static Codebook? _iq2Xxs, _iq2Xs, _iq2S, _iq3Xxs, _iq3S, _iq1;

    public static Codebook Iq2Xxs => _iq2Xxs ??= new(Iq2XxsCodes, 8, [8, 25, 43]);
    public static Codebook Iq2Xs => _iq2Xs ??= new(Iq2XsCodes, 8, [8, 25, 43]);
    public static Codebook Iq2S => _iq2S ??= new(Iq2SCodes, 8, [8, 25, 43]);
    public static Codebook Iq3Xxs => _iq3Xxs ??= new(Iq3XxsCodes, 4, [4, 12, 20, 28, 36, 44, 52, 62]);
    public static Codebook Iq3S => _iq3S ??= new(Iq3SCodes, 4, [1, 3, 5, 7, 9, 11, 13, 15]);
    public static Codebook Iq1 => _iq1 ??= new(Iq1Codes, 8, [-1, 0, 1]);
}
