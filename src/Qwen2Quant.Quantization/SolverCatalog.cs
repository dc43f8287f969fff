namespace Qwen2Quant.Quantization;

/// <summary>All solvers, by the names that <c>--method</c> takes.</summary>
public static class SolverCatalog
{
    public static ISolver RoundToNearest { get; } = new RoundToNearest();

    public static IReadOnlyList<ISolver> All { get; } = [RoundToNearest];

    /// <summary>The solver of that name in any case, or null.</summary>
    public static ISolver? Find(string name) => All.FirstOrDefault(solver => solver.Name.Equals(name, StringComparison.OrdinalIgnoreCase));
}
