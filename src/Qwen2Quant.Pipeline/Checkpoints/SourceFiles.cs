using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Formats.Safetensors;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>The files that a source is read from, as they were when it was opened.</summary>
internal sealed class SourceFiles(IFileLayer files, IReadOnlyList<string> paths)
{
    private readonly FileIdentity[] _identities = [.. paths.Select(files.IdentifyTyped)];

    public IReadOnlyList<string> Paths => paths;

    /// <summary>Names, lengths and times: equal when the files are.</summary>
    public string Identity => string.Join('\n', _identities.Select(identity => string.Create(CultureInfo.InvariantCulture, $"{identity.ResolvedPath} {identity.Length} {identity.LastWriteUtc:O}")));

    /// <exception cref="QuantException">HF-77: a file was changed since.</exception>
    public void RequireUnchanged()
    {
        for (int i = 0; i < paths.Count; i++)
        {
            if (files.IdentifyTyped(paths[i]) == _identities[i]) continue;
            throw new QuantException(ErrorKind.InvalidInput, "the source was changed while it was read")
            {
                Rule = WeightFileRules.FileUnchanged,
                Path = paths[i],
                Remedy = "Run again when nothing writes to it.",
            };
        }
    }
}
