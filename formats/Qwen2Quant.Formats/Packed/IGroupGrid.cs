using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Packed;

/// <summary>
/// A grid of integers in groups of a row, each under a scale and an origin. In memory a block is one group: its parameters, and the codes as <see cref="BitFields"/>
/// packs them. Implemented by structs, so that what they compute compiles into the loops of <see cref="GroupLanes"/>.
/// </summary>
internal interface IGroupGrid
{
    /// <summary>True where values are <c>scale * code + origin</c>, false where they are <c>scale * (code - origin)</c> and origins are codes.</summary>
    static abstract bool HasOrigins { get; }

    int Bits { get; }

    /// <summary>A multiple of 32.</summary>
    int GroupLength { get; }

    /// <summary>First byte of the codes in a block.</summary>
    int CodesOffset { get; }

    (float Scale, float Origin) Read(ReadOnlySpan<byte> block);

    void Write(float scale, float origin, Span<byte> block);

    /// <summary>Fits groups that are lanes of <typeparamref name="T"/>, see <see cref="Gguf.Blocks.Search"/>.</summary>
    void Fit<T>(ref readonly float values, ref readonly float weights, bool hasImportance, Effort effort, ref float scales, ref float origins) where T : unmanaged, ILanes<T>;

    /// <summary>The parameters under which a group's codes are chosen.</summary>
    /// <param name="scale">As it is stored, as is <paramref name="origin"/>.</param>
    (float Scale, float Origin) ForCodes(ReadOnlySpan<float> group, Effort effort, float scale, float origin);

    /// <summary>The nearest codes, as floats.</summary>
    T Code<T>(T value, T scale, T origin) where T : unmanaged, ILanes<T>;

    T Value<T>(T code, T scale, T origin) where T : unmanaged, ILanes<T>;
}
