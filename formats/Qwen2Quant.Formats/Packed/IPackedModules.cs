using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>Finds the packed modules among the tensors of a container and checks them, as a layout and its configuration say.</summary>
public interface IPackedModules
{
    /// <summary>The layout, for people.</summary>
    string LayoutName { get; }

    /// <summary>How the name of the tensor with a module's codes ends, for messages.</summary>
    string CodesSuffix { get; }

    /// <summary>False for plain tensors; else <paramref name="matrices"/> are those that the tensor holds the codes of, and none for the other parts of a module.</summary>
    /// <exception cref="QuantException">PK-2, PK-3, PK-4.</exception>
    bool TryRead(TensorEntry entry, out IReadOnlyList<PackedMatrix> matrices);
}
