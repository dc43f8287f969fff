namespace Qwen2Quant.Validation;

/// <summary>The states of all windows of a plan after the final norm, computed beforehand.</summary>
public interface IWindowStates : IDisposable
{
    /// <summary>Copies the states of window <paramref name="index"/> of the plan, row-major [tokens, hidden size].</summary>
    void Read(int index, Span<float> hidden);
}
