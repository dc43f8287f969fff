using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Pipeline.Publishing;

/// <summary>Small documents that runs keep beside their work.</summary>
internal static class JsonFile
{
    private const long LargestBytes = 1L << 30;

    /// <summary>A document; null where there is none, or one that was cut off.</summary>
    public static T? ReadOrNull<T>(IFileLayer files, string path, JsonTypeInfo<T> type) where T : class
    {
        try
        {
            return files.FileExists(path) ? JsonSerializer.Deserialize(files.ReadAllBytes(path, LargestBytes), type) : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
