using System.Globalization;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model;

/// <summary>
/// Dual chunk attention: texts longer than the trained length without positions beyond it (An et al., "Training-Free Long-Context Scaling of Large
/// Language Models", 2024, section 3; the 128K figures of Qwen2 and the 1M models of Qwen2.5 rest on it). The text is cut into chunks of
/// <see cref="Stride"/> tokens, and a key's position is its place in its chunk. A query takes its own place for keys of its chunk, its place plus the
/// stride, <see cref="ChunkSize"/> at most, for those of the chunk before (so that neighbours across the border stay neighbours), and
/// min(<see cref="ChunkSize"/>, 2 stride - 1) for all earlier ones. A text of one chunk is attended as if it were not there.
/// </summary>
/// <remarks>
/// Positions as in the authors' code and in vLLM, where the greatest is <c>chunk_size</c>; the paper's formulas end one earlier.
/// Keys as in <c>dual_chunk_attention_config</c>; the <c>sparse_attention_*</c> ones found there choose an approximation, which is not made here.
/// </remarks>
/// <param name="ChunkSize"><c>chunk_size</c>: greatest position of a query, at most the trained length.</param>
/// <param name="LocalSize"><c>local_size</c>: tokens across a border whose distances are exact.</param>
public sealed record DualChunkAttention(int ChunkSize, int LocalSize)
{
    /// <summary>
    /// <c>original_max_position_embeddings</c>: scores are multiplied by (0.1 ln(length / this) + 1)^2 where that exceeds 1, as by YaRN; null for never.
    /// The length is that of the text up to the query: a token's result does not depend on those after it. vLLM takes the whole prompt's for all its tokens.
    /// </summary>
    public int? OriginalMaxPositionEmbeddings { get; init; }

    /// <summary>Tokens of one chunk: <c>chunk_size - local_size</c>.</summary>
    public int Stride => ChunkSize - LocalSize;

    /// <summary><c>SIZE[,LOCAL]</c>; the local size is an eighth of the chunk's where it is left out.</summary>
    /// <exception cref="QuantException">Usage.</exception>
    public static DualChunkAttention Parse(string text)
    {
        string[] parts = text.Split(',');
        if (parts.Length <= 2 && Number(parts[0]) is { } size && Number(parts.Length == 2 ? parts[1] : $"{size / 8}") is { } local && local < size)
        {
            return new DualChunkAttention(size, local);
        }

        throw new QuantException(ErrorKind.Usage, "the chunks are not understood") { Found = text, Expected = "SIZE[,LOCAL] in tokens, LOCAL below SIZE, for example 32768,1024" };

        static int? Number(string digits) => int.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;
    }
}
