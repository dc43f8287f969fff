using System.Globalization;
using System.Numerics;

namespace Qwen2Quant.Benchmarks;

/// <summary>The command line is wrong.</summary>
public sealed class UsageException(string message) : Exception(message);

/// <summary>Positional arguments, <c>--name value</c> options and <c>--name</c> flags. Every option must be asked for: <see cref="Finish"/> refuses the rest.</summary>
public sealed class CommandArguments(IEnumerable<string> arguments)
{
    private readonly List<string> _left = [.. arguments];

    public bool Flag(string name) => _left.Remove(name);

    public string? Text(string name)
    {
        int index = _left.IndexOf(name);
        if (index < 0) return null;
        if (index + 1 == _left.Count) throw new UsageException($"{name} needs a value");
        string value = _left[index + 1];
        _left.RemoveRange(index, 2);
        return value;
    }

    public T Number<T>(string name, T defaultValue, T minimum) where T : INumber<T>
    {
        string? text = Text(name);
        if (text is null) return defaultValue;
        return T.TryParse(text, NumberStyles.Integer, CultureInfo.InvariantCulture, out T? value) && value >= minimum
            ? value
            : throw new UsageException($"{name} needs a number of at least {minimum}, not '{text}'");
    }

    /// <summary>What is left must be exactly <paramref name="count"/> positional arguments.</summary>
    public string[] Finish(int count)
    {
        if (_left.Find(argument => argument.StartsWith("--", StringComparison.Ordinal)) is { } unknown) throw new UsageException($"unknown option {unknown}");
        if (_left.Count != count) throw new UsageException($"{count} arguments are needed, {_left.Count} are given");
        return [.. _left];
    }
}
