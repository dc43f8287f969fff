using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>Calls to the file layer whose failures become typed errors that name the path.</summary>
internal static class FileOpening
{
    public static IReadFile OpenRead(IFileLayer files, string path) => Typed(path, () => files.OpenRead(path));

    public static IReadOnlyList<string> List(IFileLayer files, string folder) => Typed(folder, () => files.List(folder));

    public static FileIdentity Identify(IFileLayer files, string path) => Typed(path, () => files.Identify(path));

    public static byte[] ReadAllBytes(IFileLayer files, string path, long maximumBytes) =>
        Typed(path, () => files.ReadAllBytes(path, maximumBytes));

    private static T Typed<T>(string path, Func<T> call)
    {
        try
        {
            return call();
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new QuantException(ErrorKind.InvalidInput, "does not exist", error) { Path = path };
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new QuantException(ErrorKind.Resource, $"cannot be opened: {TextEscape.Escape(error.Message)}", error) { Path = path };
        }
    }
}
