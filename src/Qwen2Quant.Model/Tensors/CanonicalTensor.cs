using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Model;

/// <summary>One tensor that a configuration asks for.</summary>
/// <param name="Name">Hugging Face's name; experts one by one.</param>
/// <param name="Layer">-1 outside the layers.</param>
/// <param name="Expert">-1 outside the routed experts.</param>
public sealed record CanonicalTensor(string Name, Shape Shape, TensorRole Role, int Layer, int Expert);
