using System.Diagnostics.CodeAnalysis;
using System.Numerics;
using System.Runtime.InteropServices;

namespace Qwen2Quant.Formats.Gguf;

/// <content>
/// Reading as a wanted type. Files differ in the widths of integers (ggml's own tools changed some), so any width is read
/// when the number fits; floats are also read from integers; booleans and strings only from their own types.
/// </content>
public sealed partial class GgufValue
{
    /// <summary>The integer, when the value is one and <typeparamref name="T"/> can hold it.</summary>
    public bool TryGetInteger<T>(out T value) where T : IBinaryInteger<T>, IMinMaxValue<T>
    {
        value = T.Zero;
        return !IsArray && TryReadInteger(0, out Int128 wide) && TryNarrow(wide, out value);
    }

    /// <summary>The number as float; 64-bit values are rounded.</summary>
    public bool TryGetFloat(out float value)
    {
        value = 0;
        return !IsArray && TryReadFloat(0, out value);
    }

    public bool TryGetBool(out bool value)
    {
        bool isBool = Type == GgufValueType.Bool;
        value = isBool && _bytes[0] != 0;
        return isBool;
    }

    public bool TryGetString([NotNullWhen(true)] out string? value)
    {
        value = Type == GgufValueType.String ? GetString() : null;
        return value is not null;
    }

    public bool TryGetStringArray([NotNullWhen(true)] out string[]? values)
    {
        values = null;
        if (!IsArray || (ElementType != GgufValueType.String && Count > 0)) return false;
        values = new string[Count];
        for (int i = 0; i < values.Length; i++) values[i] = GetString(i);
        return true;
    }

    /// <summary>The integers of an array, when all are integers that <typeparamref name="T"/> can hold.</summary>
    public bool TryGetIntegerArray<T>([NotNullWhen(true)] out T[]? values) where T : IBinaryInteger<T>, IMinMaxValue<T>
    {
        values = null;
        if (!IsArray) return false;
        T[] read = new T[Count];
        for (int i = 0; i < read.Length; i++)
        {
            if (!TryReadInteger(i, out Int128 wide) || !TryNarrow(wide, out read[i])) return false;
        }

        values = read;
        return true;
    }

    public bool TryGetFloatArray([NotNullWhen(true)] out float[]? values)
    {
        values = null;
        if (!IsArray) return false;
        float[] read = new float[Count];
        for (int i = 0; i < read.Length; i++)
        {
            if (!TryReadFloat(i, out read[i])) return false;
        }

        values = read;
        return true;
    }

    private T At<T>(int index) where T : unmanaged => MemoryMarshal.Cast<byte, T>(_bytes)[index];

    private static bool TryNarrow<T>(Int128 wide, out T value) where T : IBinaryInteger<T>, IMinMaxValue<T>
    {
        bool fits = wide >= Int128.CreateChecked(T.MinValue) && wide <= Int128.CreateSaturating(T.MaxValue);
        value = fits ? T.CreateTruncating(wide) : T.Zero;
        return fits;
    }

    private bool TryReadInteger(int index, out Int128 value)
    {
        (bool isInteger, value) = ElementType switch
        {
            GgufValueType.UInt8 => (true, At<byte>(index)),
            GgufValueType.Int8 => (true, At<sbyte>(index)),
            GgufValueType.UInt16 => (true, At<ushort>(index)),
            GgufValueType.Int16 => (true, At<short>(index)),
            GgufValueType.UInt32 => (true, At<uint>(index)),
            GgufValueType.Int32 => (true, At<int>(index)),
            GgufValueType.UInt64 => (true, At<ulong>(index)),
            GgufValueType.Int64 => (true, (Int128)At<long>(index)),
            _ => (false, Int128.Zero),
        };
        return isInteger;
    }

    private bool TryReadFloat(int index, out float value)
    {
        switch (ElementType)
        {
            case GgufValueType.Float32:
                value = At<float>(index);
                return true;
            case GgufValueType.Float64:
                value = (float)At<double>(index);
                return true;
            default:
                bool isInteger = TryReadInteger(index, out Int128 integer);
                value = (float)integer;
                return isInteger;
        }
    }
}
