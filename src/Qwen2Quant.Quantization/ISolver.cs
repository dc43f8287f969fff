using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Quantization;

/// <summary>A way to choose points on a grid. Implementations hold no state: slabs of one tensor may be encoded at the same time.</summary>
public interface ISolver
{
    /// <summary>As <c>--method</c> and the report spell it.</summary>
    string Name { get; }

    /// <summary>True when the solver can write <paramref name="type"/> with that effort.</summary>
    bool Supports(ElementType type, Effort effort);

    /// <summary>Encodes whole rows as <paramref name="type"/>; <paramref name="encoded"/> has their exact length.</summary>
    /// <param name="errors">Receives what the rows lost, found by decoding what was written; null saves that time.</param>
    /// <exception cref="QuantException">A value is not finite or out of the type's range, with tensor, row and column.</exception>
    /// <exception cref="NotSupportedException"><see cref="Supports"/> is false.</exception>
    void Encode(RowSlab slab, ElementType type, Effort effort, Span<byte> encoded, ErrorSums? errors = null);
}
