using System.Collections;
using System.Diagnostics.CodeAnalysis;
using System.Numerics;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// The key/value list of a GGUF file, in the file's order. The <c>TryGet</c> methods return false only when the key is absent:
/// a value of another kind than the one asked for is a typed error, never taken for absence. Use <see cref="Find"/> to look without asking for a kind.
/// </summary>
/// <param name="path">File the metadata came from, for messages; null when they were made here.</param>
public sealed class GgufMetadata(string? path = null) : IReadOnlyCollection<KeyValuePair<string, GgufValue>>
{
    private readonly OrderedDictionary<string, GgufValue> _values = new(StringComparer.Ordinal);

    private delegate bool Converter<T>(GgufValue value, [NotNullWhen(true)] out T? converted);

    public int Count => _values.Count;

    /// <summary>The value of <paramref name="key"/>, or null.</summary>
    public GgufValue? Find(string key) => _values.GetValueOrDefault(key);

    /// <summary>Sets a value as ggml does: an existing key is removed and the new one goes to the end.</summary>
    public void Set(string key, GgufValue value)
    {
        _values.Remove(key);
        _values.Add(key, value);
    }

    /// <summary>Removes a key; false when it is not there.</summary>
    public bool Remove(string key) => _values.Remove(key);

    /// <summary>A copy that can be changed without changing this one.</summary>
    public GgufMetadata Clone()
    {
        GgufMetadata copy = new(path);
        foreach ((string key, GgufValue value) in this) copy._values.Add(key, value);
        return copy;
    }

    /// <exception cref="QuantException">The value is not a string.</exception>
    public bool TryGetString(string key, [NotNullWhen(true)] out string? value) =>
        TryGet(key, static (GgufValue v, [NotNullWhen(true)] out string? text) => v.TryGetString(out text), "a string", out value);

    /// <summary>An integer of any width in the file.</summary>
    /// <exception cref="QuantException">The value is not an integer, or <typeparamref name="T"/> cannot hold it.</exception>
    public bool TryGetInteger<T>(string key, out T value) where T : struct, IBinaryInteger<T>, IMinMaxValue<T> =>
        TryGet(key, static (GgufValue v, out T number) => v.TryGetInteger(out number), $"an integer from {T.MinValue} to {T.MaxValue}", out value);

    /// <exception cref="QuantException">The value is not a number.</exception>
    public bool TryGetFloat(string key, out float value) =>
        TryGet(key, static (GgufValue v, out float number) => v.TryGetFloat(out number), "a number", out value);

    /// <exception cref="QuantException">The value is not a boolean.</exception>
    public bool TryGetBool(string key, out bool value) =>
        TryGet(key, static (GgufValue v, out bool flag) => v.TryGetBool(out flag), "a boolean", out value);

    /// <exception cref="QuantException">The value is not an array of strings.</exception>
    public bool TryGetStringArray(string key, [NotNullWhen(true)] out string[]? values) =>
        TryGet(key, static (GgufValue v, [NotNullWhen(true)] out string[]? texts) => v.TryGetStringArray(out texts), "an array of strings", out values);

    /// <summary>An array of integers of any width in the file.</summary>
    /// <exception cref="QuantException">The value is not an array of integers, or <typeparamref name="T"/> cannot hold one of them.</exception>
    public bool TryGetIntegerArray<T>(string key, [NotNullWhen(true)] out T[]? values) where T : struct, IBinaryInteger<T>, IMinMaxValue<T> =>
        TryGet(
            key,
            static (GgufValue v, [NotNullWhen(true)] out T[]? numbers) => v.TryGetIntegerArray(out numbers),
            $"an array of integers from {T.MinValue} to {T.MaxValue}",
            out values);

    /// <exception cref="QuantException">The value is not an array of numbers.</exception>
    public bool TryGetFloatArray(string key, [NotNullWhen(true)] out float[]? values) =>
        TryGet(key, static (GgufValue v, [NotNullWhen(true)] out float[]? numbers) => v.TryGetFloatArray(out numbers), "an array of numbers", out values);

    public IEnumerator<KeyValuePair<string, GgufValue>> GetEnumerator() => _values.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <summary>Appends a key that is not there yet; false when it is.</summary>
    internal bool TryAppend(string key, GgufValue value) => _values.TryAdd(key, value);

    private bool TryGet<T>(string key, Converter<T> convert, string expected, [NotNullWhen(true)] out T? value)
    {
        value = default;
        if (Find(key) is not { } found) return false;
        if (convert(found, out value)) return true;
        throw new QuantException(ErrorKind.InvalidInput, "metadata has an unusable value")
        {
            Path = path,
            Tensor = key,
            Found = found.IsArray ? found.Describe() : $"{found.Describe()} {found}",
            Expected = expected,
        };
    }
}
