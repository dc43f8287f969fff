using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>What a MODEL argument turned out to name.</summary>
public enum ModelKind
{
    /// <summary>A folder as Hugging Face lays it out.</summary>
    Folder,

    /// <summary>A GGUF file, or any part of a split one.</summary>
    Gguf,

    /// <summary>A model inside this program.</summary>
    BuiltIn,
}

/// <param name="Kind">Kind of the location.</param>
/// <param name="Path">Folder or file; for a built-in model its whole name.</param>
/// <param name="DisplayName">Name of the model as a person would call it.</param>
/// <param name="WeightsPath">The weights file or index to use, of several in a folder; null where the folder decides.</param>
public sealed record ModelLocation(ModelKind Kind, string Path, string DisplayName, string? WeightsPath = null);

/// <summary>Finds what a MODEL argument names: a path, <c>builtin:NAME</c>, or <c>org/name[@revision]</c> in the Hugging Face cache.</summary>
public static class ModelLocator
{
    private const string BuiltInPrefix = "builtin:";

    /// <summary>Longest path in bytes that the common systems open (PATH_MAX).</summary>
    private const int LongestPathBytes = 4096;

    public static ModelLocation Locate(IFileLayer files, string model)
    {
        if (model.StartsWith(BuiltInPrefix, StringComparison.Ordinal)) return LocateBuiltIn(model);
        RequireUsablePath(model);
        if (files.DirectoryExists(model)) return new ModelLocation(ModelKind.Folder, model, FolderName(model));
        if (files.FileExists(model)) return LocateFile(model);
        if (HubCache.LooksLikeModelId(model))
        {
            HubCache cache = HubCache.FromEnvironment(files);
            return new ModelLocation(ModelKind.Folder, cache.FindSnapshot(model), model.Split('/', '@')[1]);
        }

        throw new QuantException(ErrorKind.InvalidInput, "there is no such file or folder")
        {
            Path = model,
            Expected = "a folder, a .gguf file, org/name in the Hugging Face cache, or builtin:tiny",
        };
    }

    private static ModelLocation LocateBuiltIn(string model)
    {
        if (BuiltInModels.Names.Contains(model)) return new ModelLocation(ModelKind.BuiltIn, model, model[BuiltInPrefix.Length..] + "-qwen2");
        throw new QuantException(ErrorKind.Usage, "there is no such built-in model")
        {
            Found = model,
            Expected = string.Join(", ", BuiltInModels.Names),
        };
    }

    private static ModelLocation LocateFile(string path)
    {
        string extension = Path.GetExtension(path).ToLowerInvariant();
        if (extension is ".bin" or ".pt" or ".pth" or ".ckpt" or ".pkl")
        {
            throw new QuantException(ErrorKind.Unsupported, "pickled checkpoints are not read: loading one runs its code")
            {
                Path = path,
                Remedy = "Convert it to safetensors with the library that wrote it.",
            };
        }

        string folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        if (extension == ".safetensors" || path.EndsWith(".safetensors.index.json", StringComparison.Ordinal))
        {
            return new ModelLocation(ModelKind.Folder, folder, FolderName(folder), path);
        }

        if (extension == ".json")
        {
            throw new QuantException(ErrorKind.Usage, "a checkpoint is named by its folder") { Path = path, Remedy = $"Pass {folder}." };
        }

        return new ModelLocation(ModelKind.Gguf, path, Path.GetFileNameWithoutExtension(path));
    }

    private static void RequireUsablePath(string path)
    {
        if (path.Length == 0) throw new QuantException(ErrorKind.Usage, "MODEL is empty") { Expected = "a folder, a .gguf file, org/name, or builtin:tiny" };
        bool usable = Encoding.UTF8.GetByteCount(path) <= LongestPathBytes && !path.Any(char.IsControl) && !path.Contains('\uFFFD');
        if (!usable)
        {
            throw new QuantException(ErrorKind.InvalidInput, "the path is unusable: too long, not UTF-8, or with control characters")
            {
                Rule = FileRules.RegularFiles,
                Path = path,
            };
        }
    }

    private static string FolderName(string path) => Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(path)));
}
