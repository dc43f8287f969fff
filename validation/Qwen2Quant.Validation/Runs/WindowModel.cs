using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Validation;

/// <summary>A model with the buffers of one window: hidden states of all positions, logits of some rows.</summary>
internal sealed class WindowModel : IBaseRows
{
    private readonly ILogitModel _model;
    private readonly WindowPlan _plan;
    private readonly string _role;
    private readonly int[] _input;
    private readonly float[] _hidden;
    private float[]? _logits;
    private IWindowStates? _states;
    private int _window;
    private int _firstPosition;

    /// <param name="role">What errors call the model.</param>
    public WindowModel(ILogitModel model, WindowPlan plan, RunOptions options, string role)
    {
        plan.CheckVocabulary(model.VocabularySize);
        _model = model;
        _plan = plan;
        _role = role;
        VocabularySize = model.VocabularySize;
        RowsPerChunk = options.RowsPerChunk(VocabularySize, plan.ScoredPerWindow);
        _input = new int[plan.Context];
        _hidden = new float[Product(plan.Context, model.HiddenSize)];
    }

    public int VocabularySize { get; }

    public int RowsPerChunk { get; }

    /// <summary>Lets a model that works layer by layer run all windows; before the first <see cref="Forward"/>.</summary>
    public void RunLayers(IProgressSink progress, string title, CancellationToken cancellation) => _states = _model.RunLayers(_plan, progress, title, cancellation);

    /// <summary>Runs the tokens of window <paramref name="index"/> of the plan, or takes what <see cref="RunLayers"/> made of them.</summary>
    public void Forward(int index)
    {
        _window = index;
        if (_states is not null)
        {
            _states.Read(index, _hidden);
            return;
        }

        _plan.CopyInput(index, _input);
        _model.Forward(_input, _hidden);
    }

    /// <summary>Computes the logits of <paramref name="rowCount"/> positions of the window; <see cref="Row"/> then gives them.</summary>
    public void ComputeRows(int firstPosition, int rowCount)
    {
        _firstPosition = firstPosition;
        // Not before the layers have run, whose memory it takes over.
        _logits ??= new float[Product(RowsPerChunk, VocabularySize)];
        _model.Logits(
            _hidden.AsSpan(firstPosition * _model.HiddenSize, rowCount * _model.HiddenSize),
            rowCount,
            _logits.AsSpan(0, rowCount * VocabularySize));
    }

    public ReadOnlySpan<float> Row(int row) => _logits.AsSpan(row * VocabularySize, VocabularySize);

    public RowScore Score(int row, ReadOnlySpan<float> candidateLogits, int expected, SimdLevel level) => RowScore.Compute(Row(row), candidateLogits, expected, level);

    public void Dispose() => _states?.Dispose();

    /// <summary>The error for a row whose logits are not all finite or whose probabilities leave the range of numbers.</summary>
    public QuantException NotFinite(int row)
    {
        ReadOnlySpan<float> logits = Row(row);
        int id = 0;
        while (id < logits.Length && float.IsFinite(logits[id])) id++;
        int position = _firstPosition + row;
        return new QuantException(ErrorKind.Numeric, $"the {_role}'s logits cannot be scored")
        {
            Rule = NumericRules.FiniteActivations,
            Found = id < logits.Length
                ? string.Create(CultureInfo.InvariantCulture, $"{logits[id]} for token {id} at window {_plan.WindowNumber(_window)}, position {position}")
                : string.Create(CultureInfo.InvariantCulture, $"logits too far apart at window {_plan.WindowNumber(_window)}, position {position}"),
            Expected = "finite logits",
            Remedy = "Check the model's weights with 'verify'; activations may overflow.",
        };
    }

    private static int Product(int rows, int width)
    {
        if (CheckedMath.TryMultiply(rows, width, out long count) && count <= Array.MaxLength) return (int)count;
        throw new QuantException(ErrorKind.Resource, "the window does not fit in memory")
        {
            Found = string.Create(CultureInfo.InvariantCulture, $"{rows} x {width} values"),
            Expected = string.Create(CultureInfo.InvariantCulture, $"at most {Array.MaxLength}"),
            Remedy = "Use a smaller --context.",
        };
    }
}
