using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Quantization;

/// <summary>
/// Rows of one scalar grid as rows of another with the very same values: integers and scales are taken over where the target can hold them. Nothing is known of the types
/// but their grids: a code means <c>step * (code - zero) + origin</c>, and what was packed is decoded and compared.
/// </summary>
public sealed class ExactRows
{
    private readonly IBlockCodec _from, _to;
    private readonly ElementType _fromType, _toType;
    private readonly byte[] _codes, _packed;
    private readonly float[] _fromParameters, _toParameters, _values, _decoded;
    private readonly Levels[] _levels;

    private ExactRows(ElementType from, ElementType to, int rowLength)
    {
        (_fromType, _toType, _from, _to) = (from, to, (IBlockCodec)from, (IBlockCodec)to);
        _codes = new byte[Math.Max(from.ValuesPerBlock, to.ValuesPerBlock)];
        _packed = new byte[to.BytesPerBlock];
        _fromParameters = new float[_from.Shape.ParameterCount];
        _toParameters = new float[_to.Shape.ParameterCount];
        _values = new float[rowLength];
        _decoded = new float[to.ValuesPerBlock];
        _levels = new Levels[rowLength / _from.Shape.SubBlockLength];
    }

    /// <summary>For rows of that length; null where one of the types is none of integers, or blocks do not fit. Not thread-safe: one for each thread.</summary>
    public static ExactRows? Create(ElementType from, ElementType to, int rowLength) =>
        IsLinear(from) && IsLinear(to) && to is IBlockCodec { Shape: { ParameterCount: <= 2 } shape } && shape.SubBlockLength == shape.BlockLength && rowLength % from.ValuesPerBlock == 0 && rowLength % to.ValuesPerBlock == 0
            ? new ExactRows(from, to, rowLength) : null;

    /// <summary>Writes a row; false where the target cannot hold one of its blocks, and <paramref name="encoded"/> is then not whole.</summary>
    public bool TryWrite(ReadOnlySpan<byte> row, Span<byte> encoded)
    {
        Read(row);
        for (int block = 0; block < _values.Length / _toType.ValuesPerBlock; block++)
        {
            if (!TryWriteBlock(block * _toType.ValuesPerBlock, encoded.Slice(block * _toType.BytesPerBlock, _toType.BytesPerBlock))) return false;
        }

        return true;
    }

    private static bool IsLinear(ElementType type)
    {
        if (type is not IBlockCodec codec || codec.Shape.GranuleLength != 1) return false;
        return codec.GetLevels(new float[codec.Shape.ParameterCount], 0).Table is null;
    }

    private void Read(ReadOnlySpan<byte> row)
    {
        _fromType.Decode(row, _values);
        int blockLength = _fromType.ValuesPerBlock, subLength = _from.Shape.SubBlockLength, perBlock = blockLength / subLength;
        for (int block = 0; block < _values.Length / blockLength; block++)
        {
            _from.Unpack(row.Slice(block * _fromType.BytesPerBlock, _fromType.BytesPerBlock), _codes.AsSpan(0, blockLength), _fromParameters);
            for (int sub = 0; sub < perBlock; sub++) _levels[(block * perBlock) + sub] = _from.GetLevels(_fromParameters, sub);
        }
    }

    private bool TryWriteBlock(int start, Span<byte> encoded)
    {
        int length = _toType.ValuesPerBlock, subLength = _from.Shape.SubBlockLength;
        Levels levels = _levels[start / subLength];
        for (int sub = start / subLength; sub <= (start + length - 1) / subLength; sub++)
        {
            if (_levels[sub].Step != levels.Step || _levels[sub].Zero != levels.Zero || _levels[sub].Origin != levels.Origin) return false;
        }

        // What code 0 stands for, as a value and, where it is one, as the integer that it lies below zero; turned about for scales that must not be negative.
        double origin = levels.Origin - ((double)levels.Step * levels.Zero), zero = levels.Step == 0 ? 0 : -origin / levels.Step;
        if (levels.Step == 0 && origin == 0) return TryZeros(start, encoded);
        int largest = _to.Shape.CodeCount - 1;
        return TryStep(start, levels.Step, zero, origin, encoded) || TryStep(start, -levels.Step, largest - zero, origin + ((double)levels.Step * largest), encoded);
    }

    /// <summary>A block without a scale: the target's own for zeros, as readers may divide by scales.</summary>
    private bool TryZeros(int start, Span<byte> encoded)
    {
        _to.Fit(_values.AsSpan(start, _toType.ValuesPerBlock), [], Effort.Fast, _toParameters);
        return TryCodes(start, encoded);
    }

    /// <summary>Tries parameters of the target: its second is a zero or what code 0 stands for, which of the two the comparison shows; the middle code may do as well.</summary>
    private bool TryStep(int start, float step, double zero, double origin, Span<byte> encoded)
    {
        if (_toParameters.Length == 1) return TryParameters(start, step, float.NaN, encoded);
        int middle = _to.Shape.CodeCount / 2;
        return TryParameters(start, step, (float)Math.Round(zero), encoded) || TryParameters(start, step, (float)origin, encoded)
            || TryParameters(start, step, middle, encoded) || TryParameters(start, step, -middle * step, encoded);
    }

    private bool TryParameters(int start, float step, float second, Span<byte> encoded)
    {
        _toParameters[0] = _to.Store(0, step);
        if (_toParameters[0] != step) return false;
        if (!float.IsNaN(second))
        {
            _toParameters[1] = _to.Store(1, second);
            if (_toParameters[1] != second) return false;
        }

        return TryCodes(start, encoded);
    }

    /// <summary>Takes the codes that are nearest under the parameters, and compares what they are read as.</summary>
    private bool TryCodes(int start, Span<byte> encoded)
    {
        Levels levels = _to.GetLevels(_toParameters, 0);
        Span<byte> codes = _codes.AsSpan(0, _toType.ValuesPerBlock);
        ReadOnlySpan<float> values = _values.AsSpan(start, codes.Length);
        if (levels.Step == 0) codes.Fill((byte)levels.Zero);
        else if (!ToCodes(Simd.Level, values, levels, codes)) return false;
        _to.Pack(codes, _toParameters, _packed);
        _toType.Decode(_packed, _decoded);
        if (!AreEqual(Simd.Level, values, _decoded)) return false;
        _packed.CopyTo(encoded);
        return true;
    }

    /// <summary>False where a code lies outside of those that there are.</summary>
    private static bool ToCodes(SimdLevel level, ReadOnlySpan<float> values, in Levels levels, Span<byte> codes)
    {
        if (codes.Length % Lanes512.Width != 0 || level == SimdLevel.Scalar) return ToCodes<Lanes1>(values, levels, codes);
        return level >= SimdLevel.Avx512 ? ToCodes<Lanes512>(values, levels, codes) : level >= SimdLevel.Avx2 ? ToCodes<Lanes256>(values, levels, codes) : ToCodes<Lanes128>(values, levels, codes);
    }

    private static bool AreEqual(SimdLevel level, ReadOnlySpan<float> values, ReadOnlySpan<float> decoded)
    {
        if (values.Length % Lanes512.Width != 0 || level == SimdLevel.Scalar) return AreEqual<Lanes1>(values, decoded);
        return level >= SimdLevel.Avx512 ? AreEqual<Lanes512>(values, decoded) : level >= SimdLevel.Avx2 ? AreEqual<Lanes256>(values, decoded) : AreEqual<Lanes128>(values, decoded);
    }

    private static bool ToCodes<T>(ReadOnlySpan<float> values, in Levels levels, Span<byte> codes) where T : unmanaged, ILanes<T>
    {
        T origin = T.Broadcast(levels.Origin), step = T.Broadcast(levels.Step), zero = T.Broadcast(levels.Zero), areCodes = T.BroadcastInt(-1);
        for (int i = 0; i < values.Length; i += T.Width)
        {
            T code = LaneMath.RoundToEven(((T.Load(in values[i]) - origin) / step) + zero), within = LaneMath.Clamp(code, 0, levels.CodeCount - 1);
            areCodes &= T.Equal(code, within);
            T.StoreBytes(T.ToInt(within), ref codes[i]);
        }

        return IsSet(areCodes);
    }

    private static bool AreEqual<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> decoded) where T : unmanaged, ILanes<T>
    {
        T areEqual = T.BroadcastInt(-1);
        for (int i = 0; i < values.Length; i += T.Width) areEqual &= T.Equal(T.Load(in values[i]), T.Load(in decoded[i]));
        return IsSet(areEqual);
    }

    private static bool IsSet<T>(T mask) where T : unmanaged, ILanes<T> => T.TopBits(mask) == (1u << T.Width) - 1;
}
