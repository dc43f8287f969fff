using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model;

/// <summary>The rules that a configuration and the set of its tensors must satisfy.</summary>
public static class ModelRules
{
    public static readonly Rule Json = new("HF-69", "a configuration is strict JSON: UTF-8, no duplicate keys, no NaN, no comments, bounded size and depth, values of their type");
    public static readonly Rule Values = new("HF-70", "the numbers of a configuration describe a model: heads divide the width, layers and sizes are positive, epsilon and theta are in range");
    public static readonly Rule RopeScaling = new("HF-71", "every key of the rope scaling is known and its type is default, linear, dynamic or yarn");
    public static readonly Rule Tie = new("HF-72", "a tied output has no matrix of its own or an equal one, an untied output has its own");
    public static readonly Rule TensorSet = new("HF-73", "the tensors are those the configuration asks for, each in its shape");

    public static IReadOnlyList<Rule> All { get; } = [Json, Values, RopeScaling, Tie, TensorSet];
}
