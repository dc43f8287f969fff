using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using System.Text;

namespace Qwen2Quant.EndToEnd.LlamaCpp;

/// <summary>A GGUF file opened by llama.cpp on the CPU, with one context. Not thread-safe.</summary>
public sealed unsafe class LlamaModel : IDisposable
{
    private readonly nint _vocabulary;
    private nint _model;
    private nint _context;
    private LlamaBatch _batch;

    private LlamaModel(nint model)
    {
        _model = model;
        _vocabulary = LlamaApi.GetVocabulary(model);
        VocabularySize = LlamaApi.VocabularySize(_vocabulary);
    }

    public int VocabularySize { get; }

    public int ContextLength { get; private init; }

    public long ParameterCount => checked((long)LlamaApi.ParameterCount(_model));

    /// <param name="threadCount">ggml's threads wait for one another by spinning: more than one is slower than one where tests share the cores.</param>
    /// <exception cref="InvalidOperationException">llama.cpp refused the file, with what it logged.</exception>
    public static LlamaModel Load(string path, int contextLength = 512, int threadCount = 1)
    {
        LlamaApi.ForgetErrors();
        nint model;
        fixed (byte* nativePath = LlamaApi.ToNative(path)) model = LlamaApi.LoadModel(nativePath, LlamaApi.ModelDefaults());
        if (model == 0) throw new InvalidOperationException($"llama.cpp does not load '{path}': {LlamaApi.LoggedErrors()}");

        OpaqueParameters parameters = LlamaApi.ContextDefaults();
        Span<uint> contextBatchMicrobatch = MemoryMarshal.Cast<byte, uint>((Span<byte>)parameters);
        contextBatchMicrobatch[0] = (uint)contextLength;
        contextBatchMicrobatch[1] = (uint)contextLength;
        contextBatchMicrobatch[2] = (uint)Math.Min(contextLength, 512);
        LlamaModel opened = new(model) { ContextLength = contextLength, _context = LlamaApi.CreateContext(model, parameters) };
        if (opened._context == 0)
        {
            opened.Dispose();
            throw new InvalidOperationException($"llama.cpp makes no context for '{path}': {LlamaApi.LoggedErrors()}");
        }

        LlamaApi.SetThreads(opened._context, threadCount, threadCount);
        opened._batch = LlamaApi.CreateBatch(contextLength, 0, 1);
        return opened;
    }

    /// <summary>A metadata value as llama.cpp prints it, or null when the file has none of that key.</summary>
    public string? Metadata(string key)
    {
        byte[] text = new byte[1 << 20];
        int length;
        fixed (byte* name = LlamaApi.ToNative(key))
        fixed (byte* buffer = text) length = LlamaApi.MetadataString(_model, name, buffer, (nuint)text.Length);
        return length < 0 ? null : Encoding.UTF8.GetString(text, 0, Math.Min(length, text.Length - 1));
    }

    /// <param name="addSpecial">Lets the model put its begin token in front, where it has one.</param>
    /// <param name="parseSpecial">Takes the text of control tokens for the tokens.</param>
    public int[] Tokenize(string text, bool parseSpecial = false, bool addSpecial = true)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        int[] tokens = new int[bytes.Length + 16];
        int count;
        fixed (byte* source = bytes)
        fixed (int* destination = tokens)
        {
            count = LlamaApi.Tokenize(_vocabulary, source, bytes.Length, destination, tokens.Length, addSpecial ? (byte)1 : (byte)0, parseSpecial ? (byte)1 : (byte)0);
        }

        return count >= 0 ? tokens[..count] : throw new InvalidOperationException($"llama_tokenize failed with {count}");
    }

    /// <summary>The bytes that a token stands for, control tokens by their text.</summary>
    public byte[] Piece(int token)
    {
        byte[] piece = new byte[1024];
        int length;
        fixed (byte* buffer = piece) length = LlamaApi.TokenToPiece(_vocabulary, token, buffer, piece.Length, 0, 1);
        return length >= 0 ? piece[..length] : throw new InvalidOperationException($"llama_token_to_piece failed with {length}");
    }

    /// <summary>
    /// Evaluates a window from an empty cache. Returns the logits of positions <paramref name="firstPosition"/> and on,
    /// row-major, <see cref="VocabularySize"/> floats each; valid until the next call.
    /// </summary>
    public ReadOnlySpan<float> Logits(ReadOnlySpan<int> tokens, int firstPosition = 0)
    {
        LlamaApi.ClearMemory(LlamaApi.GetMemory(_context), 1);
        return Evaluate(tokens, 0, firstPosition);
    }

    /// <summary>Evaluates tokens from an empty cache without computing logits.</summary>
    public void Prompt(ReadOnlySpan<int> tokens)
    {
        LlamaApi.ClearMemory(LlamaApi.GetMemory(_context), 1);
        Decode(tokens, 0, tokens.Length);
    }

    /// <summary>Logits after one more token at <paramref name="position"/>.</summary>
    public ReadOnlySpan<float> Continue(int token, int position) => Evaluate([token], position, 0);

    /// <summary>Up to <paramref name="count"/> tokens after <paramref name="prompt"/>, each the first of the greatest logits; ends before an end-of-generation token.</summary>
    public int[] GenerateGreedy(ReadOnlySpan<int> prompt, int count)
    {
        List<int> generated = [];
        int next = TensorPrimitives.IndexOfMax(Logits(prompt, prompt.Length - 1));
        while (generated.Count < count && LlamaApi.IsEndOfGeneration(_vocabulary, next) == 0)
        {
            generated.Add(next);
            if (generated.Count < count) next = TensorPrimitives.IndexOfMax(Evaluate([next], prompt.Length + generated.Count - 1, 0));
        }

        return [.. generated];
    }

    /// <summary>
    /// Perplexity by llama-perplexity's rule: windows of <see cref="ContextLength"/> tokens without overlap, each from an empty cache,
    /// its first token replaced by the begin token where the model adds one; the second half of each is scored.
    /// </summary>
    /// <param name="chunkCount">Windows from the start of the text; all whole ones when it has fewer.</param>
    public LlamaPerplexity Perplexity(string text, int chunkCount = int.MaxValue) => Perplexity(Tokenize(text), chunkCount);

    /// <inheritdoc cref="Perplexity(string, int)"/>
    public LlamaPerplexity Perplexity(ReadOnlySpan<int> tokens, int chunkCount = int.MaxValue)
    {
        int chunks = Math.Min(tokens.Length / ContextLength, chunkCount);
        if (chunks == 0) throw new ArgumentException("the text is shorter than one window", nameof(tokens));
        int first = ContextLength / 2;
        double sum = 0, squares = 0;
        int scored = 0;
        for (int chunk = 0; chunk < chunks; chunk++)
        {
            ReadOnlySpan<int> original = tokens.Slice(chunk * ContextLength, ContextLength);
            int[] window = original.ToArray();
            if (LlamaApi.AddsBegin(_vocabulary) != 0) window[0] = LlamaApi.BeginToken(_vocabulary);
            ReadOnlySpan<float> logits = Logits(window, first);
            for (int position = first; position < ContextLength - 1; position++)
            {
                double loss = NegativeLogLikelihood(logits.Slice((position - first) * VocabularySize, VocabularySize), original[position + 1]);
                sum += loss;
                squares += loss * loss;
                scored++;
            }
        }

        double mean = sum / scored;
        double variance = (squares / scored) - (mean * mean);
        double value = Math.Exp(mean);
        return new LlamaPerplexity(value, variance > 0 ? Math.Sqrt(variance / (scored - 1)) * value : 0, scored, chunks);
    }

    public void Dispose()
    {
        if (_batch.Tokens != null) LlamaApi.FreeBatch(_batch);
        if (_context != 0) LlamaApi.FreeContext(_context);
        if (_model != 0) LlamaApi.FreeModel(_model);
        _batch = default;
        _context = 0;
        _model = 0;
    }

    /// <summary>F32 exponentials summed in double over the whole vocabulary, as llama-perplexity does.</summary>
    private static double NegativeLogLikelihood(ReadOnlySpan<float> logits, int token)
    {
        float greatest = TensorPrimitives.Max(logits);
        double sum = 0;
        foreach (float logit in logits) sum += MathF.Exp(logit - greatest);
        return Math.Log(sum) - (logits[token] - greatest);
    }

    private ReadOnlySpan<float> Evaluate(scoped ReadOnlySpan<int> tokens, int firstTokenPosition, int firstLogits)
    {
        Decode(tokens, firstTokenPosition, firstLogits);
        return new ReadOnlySpan<float>(LlamaApi.GetLogits(_context), checked((tokens.Length - firstLogits) * VocabularySize));
    }

    private void Decode(scoped ReadOnlySpan<int> tokens, int firstTokenPosition, int firstLogits)
    {
        if (tokens.Length > ContextLength) throw new ArgumentException("more tokens than the context holds", nameof(tokens));
        _batch.TokenCount = tokens.Length;
        for (int i = 0; i < tokens.Length; i++)
        {
            _batch.Tokens[i] = tokens[i];
            _batch.Positions[i] = firstTokenPosition + i;
            _batch.SequenceCounts[i] = 1;
            _batch.SequenceIds[i][0] = 0;
            _batch.WantsLogits[i] = i >= firstLogits ? (sbyte)1 : (sbyte)0;
        }

        LlamaApi.ForgetErrors();
        int status = LlamaApi.Decode(_context, _batch);
        if (status != 0) throw new InvalidOperationException($"llama_decode failed with {status}: {LlamaApi.LoggedErrors()}");
    }
}

/// <summary>What llama-perplexity prints at the end.</summary>
/// <param name="StandardError">Of <paramref name="Value"/> itself, not of its logarithm.</param>
public sealed record LlamaPerplexity(double Value, double StandardError, int ScoredTokens, int Chunks);
