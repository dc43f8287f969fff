using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Quantization;

/// <summary>Scalar grids: codes column by column, a vector of rows at a time.</summary>
internal sealed unsafe partial class GptqRows
{
    /// <summary>Columns whose changes reach those behind them together.</summary>
    private const int Together = 8;

    /// <param name="square">The block's square of the matrix, rows <see cref="_width"/> floats apart.</param>
    /// <param name="added">What is added to its diagonal; empty where that is in it.</param>
    private void ChooseColumns(int first, int size, float* square, ReadOnlySpan<float> added)
    {
        float[] inverses = new float[size];
        for (int j = 0; j < size; j++) inverses[j] = 1 / (square[((long)j * _width) + j] + (added.IsEmpty ? 0 : added[j]));
        for (int panel = 0; panel < _panelCount; panel++)
        {
            if (Simd.Level >= SimdLevel.Avx512) ChooseColumns<Lanes512>(panel, first, square, inverses, isDescent: !added.IsEmpty);
            else if (Simd.Level >= SimdLevel.Avx2) ChooseColumns<Lanes256>(panel, first, square, inverses, isDescent: !added.IsEmpty);
            else if (Simd.Level >= SimdLevel.Vector128) ChooseColumns<Lanes128>(panel, first, square, inverses, isDescent: !added.IsEmpty);
            else ChooseColumns<Lanes1>(panel, first, square, inverses, isDescent: !added.IsEmpty);
        }
    }

    [SkipLocalsInit]
    private void ChooseColumns<T>(int panel, int first, float* square, ReadOnlySpan<float> inverses, bool isDescent) where T : unmanaged, ILanes<T>
    {
        int size = inverses.Length;
        float* changes = stackalloc float[Together * Lanes];
        float* sums = _sums + (panel * Lanes);
        float* weights = _weights + ((((long)panel * _width) + first) * Lanes), errors = _errors + ((((long)panel * _width) + first) * Lanes);
        for (int start = 0; start < size; start += Together)
        {
            int count = Math.Min(Together, size - start);
            for (int j = start; j < start + count; j++)
            {
                int column = _order[first + j];
                ref byte codes = ref _codes[((panel * (long)_width) + column) * Lanes];
                int level = ((panel * SubBlocks) + (column / _shape.SubBlockLength)) * Lanes;
                float* own = sums + ((long)j * RowStride);
                for (int l = 0; l < Lanes; l += T.Width)
                {
                    T weight = At<T>(weights, (j * Lanes) + l), step = T.Load(in _steps[level + l]), origin = T.Load(in _origins[level + l]), zero = T.Load(in _zeros[level + l]);
                    T old = isDescent ? At<T>(errors, (j * Lanes) + l) : T.Broadcast(0);
                    T target = T.MultiplyAdd(At<T>(own, l), T.Broadcast(inverses[j]), weight - old);
                    T code = Nearest(target, step, origin, zero);
                    T error = weight - Value(code, step, origin, zero);
                    T.StoreBytes(T.ToInt(code), ref Unsafe.Add(ref codes, l));
                    T.Store(error, ref errors[(j * Lanes) + l]);
                    T.Store(error - old, ref changes[((j - start) * Lanes) + l]);
                }

                for (int next = j + 1; next < start + count; next++)
                {
                    T factor = T.Broadcast(square[((long)next * _width) + j]);
                    float* sum = sums + ((long)next * RowStride);
                    for (int l = 0; l < Lanes; l += T.Width) T.Store(T.MultiplyAdd(At<T>(changes, ((j - start) * Lanes) + l), factor, At<T>(sum, l)), ref sum[l]);
                }
            }

            if (count == Together) AddTogether<T>(changes, square + start, sums, start + Together, size);
        }
    }

    /// <summary>Adds the changes of eight columns to the sums of those behind them.</summary>
    private void AddTogether<T>(float* changes, float* rows, float* sums, int from, int size) where T : unmanaged, ILanes<T>
    {
        for (int l = 0; l < Lanes; l += T.Width)
        {
            T c0 = At<T>(changes, l), c1 = At<T>(changes, Lanes + l), c2 = At<T>(changes, (2 * Lanes) + l), c3 = At<T>(changes, (3 * Lanes) + l);
            T c4 = At<T>(changes, (4 * Lanes) + l), c5 = At<T>(changes, (5 * Lanes) + l), c6 = At<T>(changes, (6 * Lanes) + l), c7 = At<T>(changes, (7 * Lanes) + l);
            for (int next = from; next < size; next++)
            {
                float* row = rows + ((long)next * _width), sum = sums + ((long)next * RowStride) + l;
                T even = T.MultiplyAdd(c0, T.Broadcast(row[0]), At<T>(sum, 0)), odd = c1 * T.Broadcast(row[1]);
                even = T.MultiplyAdd(c2, T.Broadcast(row[2]), even);
                odd = T.MultiplyAdd(c3, T.Broadcast(row[3]), odd);
                even = T.MultiplyAdd(c4, T.Broadcast(row[4]), even);
                odd = T.MultiplyAdd(c5, T.Broadcast(row[5]), odd);
                even = T.MultiplyAdd(c6, T.Broadcast(row[6]), even);
                odd = T.MultiplyAdd(c7, T.Broadcast(row[7]), odd);
                T.Store(even + odd, ref sum[0]);
            }
        }
    }

    /// <summary>Codes of the nearest levels, as floats; the middle one where the step is zero and all mean the same.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private T Nearest<T>(T value, T step, T origin, T zero) where T : unmanaged, ILanes<T>
    {
        T isFlat = T.Equal(step, T.Broadcast(0));
        if (_table is null)
        {
            T code = T.Select(isFlat, T.Broadcast(_shape.CodeCount / 2), ((value - origin) / step) + zero);
            return LaneMath.RoundToEven(LaneMath.Clamp(code, 0, _shape.CodeCount - 1));
        }

        T level = T.Select(isFlat, T.Broadcast(_table[_shape.CodeCount / 2]), value / step), place = T.Broadcast(0);
        if (_isE4M3) return Float8.PlacesE4M3(level);
        for (int k = 1; k < _shape.CodeCount; k++) place += T.Broadcast(1) & T.Greater(level, T.Broadcast((_table[k - 1] + _table[k]) / 2));
        return place;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private T Value<T>(T code, T step, T origin, T zero) where T : unmanaged, ILanes<T> =>
        _table is null ? (step * (code - zero)) + origin : step * (_isE4M3 ? Float8.AtPlacesE4M3(code) : T.Lookup16(in _table[0], T.ToInt(code)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T At<T>(float* values, long index) where T : unmanaged, ILanes<T> => T.Load(in values[index]);
}
