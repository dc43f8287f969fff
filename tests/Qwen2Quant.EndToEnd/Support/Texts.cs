using System.Text;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Support;

/// <summary>The held-out prose of the repository, which is also <c>builtin:text</c>.</summary>
public static class Texts
{
    public static string HeldOutPath { get; } = Path.Combine(Repository.Root, "validation", "corpora", "heldout.txt");

    public static string HeldOut { get; } = File.ReadAllText(HeldOutPath, Encoding.UTF8);

    /// <summary>The first lines that hold something.</summary>
    public static IReadOnlyList<string> Lines(int count) => [.. HeldOut.Split('\n').Where(line => line.Length > 0).Take(count)];
}
