namespace Qwen2Quant.Model;

/// <summary>What a tensor does in the model.</summary>
public enum TensorRole
{
    TokenEmbedding,
    Output,
    OutputNorm,
    AttentionNorm,
    AttentionQ,
    AttentionK,
    AttentionV,
    AttentionO,
    AttentionQBias,
    AttentionKBias,
    AttentionVBias,
    FfnNorm,
    FfnGate,
    FfnUp,
    FfnDown,
    Router,
    ExpertGate,
    ExpertUp,
    ExpertDown,
    SharedFfnGate,
    SharedFfnUp,
    SharedFfnDown,

    /// <summary>The one row whose sigmoid weighs the shared expert.</summary>
    SharedExpertGate,
}

public static class TensorRoleExtensions
{
    /// <summary>True for the matrices inside layers that quantization formats pack: not the embedding, output, router or shared expert's gate.</summary>
    public static bool IsLayerLinear(this TensorRole role) => role is TensorRole.AttentionQ or TensorRole.AttentionK or TensorRole.AttentionV or TensorRole.AttentionO
        or TensorRole.FfnGate or TensorRole.FfnUp or TensorRole.FfnDown or TensorRole.ExpertGate or TensorRole.ExpertUp or TensorRole.ExpertDown
        or TensorRole.SharedFfnGate or TensorRole.SharedFfnUp or TensorRole.SharedFfnDown;

    public static bool IsExpert(this TensorRole role) => role is TensorRole.ExpertGate or TensorRole.ExpertUp or TensorRole.ExpertDown;
}
