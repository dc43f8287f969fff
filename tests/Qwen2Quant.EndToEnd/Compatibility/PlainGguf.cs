using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Compatibility;

/// <summary>The built-in model in plain GGUF files that this program writes, one for each type, made when first asked for.</summary>
public sealed class PlainGguf : IDisposable
{
    private readonly TempFolder _folder = new();

    /// <param name="type">As <c>convert --type</c> spells it.</param>
    public string Path(string type)
    {
        string path = _folder.File($"tiny-{type}.gguf");
        if (!File.Exists(path)) CliCommand.Succeed("convert", Models.Tiny, "--to", "gguf", "--type", type, "--out", path);
        return path;
    }

    public void Dispose() => _folder.Dispose();
}
