using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Validation;

/// <summary>The texts that are part of the program, under the names that a TEXT argument takes.</summary>
public static class Corpora
{
    /// <summary>What a name of an embedded text starts with.</summary>
    public const string Prefix = "builtin:";

    /// <summary>Held-out prose, for measuring.</summary>
    public const string Text = "builtin:text";

    /// <summary>Text for calibration; shares no passage with <see cref="Text"/>.</summary>
    public const string Calibration = "builtin:calibration";

    public static IReadOnlyList<string> Names { get; } = [Text, Calibration];

    /// <summary>The bytes of an embedded text, as its file has them.</summary>
    /// <exception cref="QuantException">Usage: there is no such text.</exception>
    public static byte[] ReadBytes(string name)
    {
        string file = name switch
        {
            Text => "corpora/heldout.txt",
            Calibration => "corpora/calibration.txt",
            _ => throw new QuantException(ErrorKind.Usage, "there is no embedded text of this name")
            {
                Found = name,
                Expected = string.Join(" or ", Names),
            },
        };
        using Stream stream = typeof(Corpora).Assembly.GetManifestResourceStream(file)
            ?? throw new InvalidOperationException($"resource {file} is not in the assembly");
        byte[] bytes = new byte[stream.Length];
        stream.ReadExactly(bytes);
        return bytes;
    }

    /// <summary>An embedded text as characters, whole.</summary>
    /// <exception cref="QuantException">Usage: there is no such text.</exception>
    public static string Read(string name) => EvaluationText.Decode(ReadBytes(name), name);
}
