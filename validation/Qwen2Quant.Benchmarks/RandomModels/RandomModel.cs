using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Benchmarks.RandomModels;

/// <summary>Fills whole rows of a tensor, from <paramref name="firstRow"/> on, in the tensor's own type.</summary>
public delegate void FillRows(OutputTensor tensor, long firstRow, Span<byte> rows);

/// <summary>
/// The tensors of a random model under both spellings and what their rows hold: linears and embeddings N(0, 0.02), norms N(1, 0.05), biases N(0, 0.1).
/// A GGUF keeps norms and biases in F32, as llama.cpp's converter does; the values are the same.
/// </summary>
public sealed class RandomModel
{
    private readonly Dictionary<string, GaussianRows> _rows = new(StringComparer.Ordinal);

    public RandomModel(ModelShape shape, ulong seed, bool gguf)
    {
        List<OutputTensor> tensors = [];

        ushort[] linear = GaussianRows.CreateTable(seed, 0, 0.02f), norm = GaussianRows.CreateTable(seed, 1, 0.05f), bias = GaussianRows.CreateTable(seed, 0, 0.1f);

        void Add(string huggingFaceName, string ggufName, ushort[] table, params ReadOnlySpan<long> dimensions)
        {
            ElementType type = gguf && dimensions.Length == 1 ? PlainTypes.F32 : PlainTypes.BF16;
            OutputTensor tensor = new(gguf ? ggufName : huggingFaceName, type, new Shape(dimensions));
            tensors.Add(tensor);
            _rows.Add(tensor.Name, new GaussianRows(seed, huggingFaceName, table));
        }

        void AddLinear(string huggingFaceName, string ggufName, long outputs, long inputs) =>
            Add($"{huggingFaceName}.weight", $"{ggufName}.weight", linear, outputs, inputs);

        void AddNorm(string huggingFaceName, string ggufName) => Add($"{huggingFaceName}.weight", $"{ggufName}.weight", norm, shape.HiddenSize);

        long hidden = shape.HiddenSize, intermediate = shape.IntermediateSize;
        AddLinear("model.embed_tokens", "token_embd", shape.VocabularySize, hidden);
        for (int layer = 0; layer < shape.LayerCount; layer++)
        {
            string here = $"model.layers.{layer}", block = $"blk.{layer}";
            AddNorm($"{here}.input_layernorm", $"{block}.attn_norm");
            foreach ((string letter, long outputs) in new[] { ("q", hidden), ("k", shape.KeyValueSize), ("v", shape.KeyValueSize) })
            {
                AddLinear($"{here}.self_attn.{letter}_proj", $"{block}.attn_{letter}", outputs, hidden);
                Add($"{here}.self_attn.{letter}_proj.bias", $"{block}.attn_{letter}.bias", bias, outputs);
            }

            AddLinear($"{here}.self_attn.o_proj", $"{block}.attn_output", hidden, hidden);
            AddNorm($"{here}.post_attention_layernorm", $"{block}.ffn_norm");
            AddLinear($"{here}.mlp.gate_proj", $"{block}.ffn_gate", intermediate, hidden);
            AddLinear($"{here}.mlp.up_proj", $"{block}.ffn_up", intermediate, hidden);
            AddLinear($"{here}.mlp.down_proj", $"{block}.ffn_down", hidden, intermediate);
        }

        AddNorm("model.norm", "output_norm");
        if (!shape.TieWordEmbeddings) AddLinear("lm_head", "output", shape.VocabularySize, hidden);
        Tensors = tensors;
    }

    public IReadOnlyList<OutputTensor> Tensors { get; }

    /// <inheritdoc cref="FillRows"/>
    public void Fill(OutputTensor tensor, long firstRow, Span<byte> rows)
    {
        int rowLength = checked((int)tensor.Shape.RowLength);
        int rowBytes = checked((int)tensor.Type.ByteCount(rowLength));
        GaussianRows source = _rows[tensor.Name];
        ushort[]? narrow = tensor.Type == PlainTypes.BF16 ? null : new ushort[rowLength];
        for (int row = 0; row < rows.Length / rowBytes; row++)
        {
            Span<byte> bytes = rows.Slice(row * rowBytes, rowBytes);
            source.Fill(firstRow + row, narrow ?? MemoryMarshal.Cast<byte, ushort>(bytes));
            if (narrow is not null) BFloat16Rows.Widen(narrow, MemoryMarshal.Cast<byte, float>(bytes));
        }
    }
}
