using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>The models inside this program: real ones, small enough to carry, read through the same readers as any folder.</summary>
public sealed class BuiltInModels : IFileLayer
{
    private const string Prefix = "builtin:";
    private static readonly string[] FileNames = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

    public static BuiltInModels Instance { get; } = new();

    /// <summary>What a MODEL argument may say.</summary>
    public static IReadOnlyList<string> Names { get; } = ["builtin:tiny"];

    public IReadFile OpenRead(string path) => new MemoryReadFile(path, Read(path) ?? throw new FileNotFoundException("there is no such built-in file", path));

    public bool FileExists(string path)
    {
        using Stream? stream = Open(path);
        return stream is not null;
    }

    public bool DirectoryExists(string path) => Names.Contains(path);

    public IReadOnlyList<string> List(string directory) => FileNames;

    public FileIdentity Identify(string path)
    {
        using Stream? stream = Open(path);
        return new FileIdentity(path, stream?.Length ?? -1, DateTime.UnixEpoch);
    }

    public string? ResolveLink(string path) => path;

    public bool IsInUse(string path) => false;

    public IWriteFile Create(string path, long byteLength) => throw ReadOnly();

    public IWriteFile OpenWrite(string path, long byteLength) => throw ReadOnly();

    public IDisposable TryLock(string path) => throw ReadOnly();

    public IScratchFile CreateScratch(string directory) => throw ReadOnly();

    public void CreateDirectory(string path) => throw ReadOnly();

    public void Rename(string from, string to, bool overwrite) => throw ReadOnly();

    public void Delete(string path) => throw ReadOnly();

    public void FlushDirectory(string path) => throw ReadOnly();

    public long FreeBytes(string path) => 0;

    private static NotSupportedException ReadOnly() => new("built-in models are read-only");

    private static byte[]? Read(string path)
    {
        using Stream? stream = Open(path);
        if (stream is null) return null;
        byte[] bytes = new byte[stream.Length];
        stream.ReadExactly(bytes);
        return bytes;
    }

    private static Stream? Open(string path) =>
        typeof(BuiltInModels).Assembly.GetManifestResourceStream(path.Replace(Prefix, "builtin/", StringComparison.Ordinal).Replace('\\', '/'));
}
