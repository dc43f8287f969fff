using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>Recognises what stands in place of weights when the first 8 bytes cannot be a header's length.</summary>
internal static class WeightFilePrefix
{
    /// <summary>Bytes that are looked at.</summary>
    public const int Length = 256;

    /// <summary>The error that names what the file is, or null when its first bytes tell nothing.</summary>
    public static QuantException? Recognise(string path, ReadOnlySpan<byte> prefix)
    {
        if (prefix.StartsWith("version https://git-lfs"u8))
        {
            return new QuantException(ErrorKind.InvalidInput, "a Git LFS pointer stands in place of the weights")
            {
                Rule = WeightFileRules.NotLfsPointer,
                Path = path,
                Remedy = "Run 'git lfs pull' in the model's folder, or download the file again.",
            };
        }

        if (prefix.StartsWith("PK\u0003\u0004"u8) || prefix.StartsWith<byte>([0x80, 2]))
        {
            return Pickle(path);
        }

        if (!IsText(prefix)) return null;
        return new QuantException(ErrorKind.InvalidInput, "text stands in place of the weights, as when an error page was saved")
        {
            Rule = WeightFileRules.NotText,
            Path = path,
            Found = TextEscape.Escape(prefix),
            Expected = "a safetensors file",
            Remedy = "Download the file again and check its address and the access rights.",
        };
    }

    public static QuantException Pickle(string path) => new(ErrorKind.Unsupported, "the weights are a Python pickle, which executes code when read")
    {
        Rule = WeightFileRules.NotPickle,
        Path = path,
        Expected = "safetensors",
        Remedy = "Convert them once in Python: safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors').",
    };

    private static bool IsText(ReadOnlySpan<byte> prefix)
    {
        foreach (byte b in prefix)
        {
            if (b < 0x20 ? b is not ((byte)'\t' or (byte)'\r' or (byte)'\n') : b is 0x7f or >= 0xf8) return false;
        }

        return true;
    }
}
