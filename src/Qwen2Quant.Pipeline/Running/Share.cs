using System.Globalization;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>One of several equal shares of numbered work: number <paramref name="Index"/>, from 0, of <paramref name="Count"/>.</summary>
public sealed record Share(int Index, int Count)
{
    /// <summary>A share as people write it: 2/4 is the second of four.</summary>
    /// <exception cref="QuantException">Usage: it is none.</exception>
    public static Share Parse(string text, string option)
    {
        string[] parts = text.Split('/');
        if (parts.Length == 2 && int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out int number) && int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out int count) && number >= 1 && number <= count)
        {
            return new Share(number - 1, count);
        }

        throw new QuantException(ErrorKind.Usage, $"{option} is no part") { Found = text, Expected = "K/N, for example 2/4 for the second of four parts" };
    }

    /// <summary>Whether a unit is in this share.</summary>
    public bool Takes(int unit) => unit % Count == Index;
}
