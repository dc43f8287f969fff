using System.Text;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>Schemes of one container: what stands before the colon, with a marker of their own in plots.</summary>
/// <param name="Name">As schemes spell it.</param>
/// <param name="Style">The class that gives the marker its colour.</param>
internal sealed record SchemeFamily(string Name, string Style)
{
    public static IReadOnlyList<SchemeFamily> All { get; } =
    [
        new("gguf", "f-gguf"), new("gptq", "f-gptq"), new("awq", "f-awq"), new("compressed-tensors", "f-ct"), new("mlx", "f-mlx"), new("fp8", "f-fp8"), new("other", "f-other"),
    ];

    /// <summary>The family of a scheme; the last of all where nothing fits.</summary>
    public static SchemeFamily Of(string scheme)
    {
        int colon = scheme.IndexOf(':', StringComparison.Ordinal);
        string name = colon < 0 ? scheme : scheme[..colon];
        return All.FirstOrDefault(family => family.Name.Equals(name, StringComparison.OrdinalIgnoreCase)) ?? All[^1];
    }

    /// <summary>The scheme without its family.</summary>
    public static string ShortName(string scheme)
    {
        int colon = scheme.IndexOf(':', StringComparison.Ordinal);
        return colon < 0 || colon == scheme.Length - 1 ? scheme : scheme[(colon + 1)..];
    }

    /// <summary>Path data of the marker around 0, 0; shapes of different families look equally large.</summary>
    public string Marker(double radius) => Style switch
    {
        "f-gguf" => Circle(radius),
        "f-gptq" => Polygon(4, radius * 1.22, Math.PI / 4),
        "f-awq" => Polygon(3, radius * 1.3, -Math.PI / 2),
        "f-ct" => Polygon(4, radius * 1.28, 0),
        "f-mlx" => Polygon(3, radius * 1.3, Math.PI / 2),
        "f-fp8" => Plus(radius * 1.1, radius * 0.42),
        _ => Polygon(5, radius * 1.15, -Math.PI / 2),
    };

    private static string Circle(double radius)
    {
        string r = ReportText.Coordinate(radius), diameter = ReportText.Coordinate(2 * radius);
        return $"M-{r} 0a{r} {r} 0 1 0 {diameter} 0a{r} {r} 0 1 0 -{diameter} 0z";
    }

    private static string Polygon(int corners, double radius, double turn) =>
        Closed(Enumerable.Range(0, corners).Select(i => turn + 2 * Math.PI * i / corners).Select(angle => (radius * Math.Cos(angle), radius * Math.Sin(angle))));

    private static string Plus(double arm, double half) =>
        Closed([(-half, -arm), (half, -arm), (half, -half), (arm, -half), (arm, half), (half, half), (half, arm), (-half, arm), (-half, half), (-arm, half), (-arm, -half), (-half, -half)]);

    private static string Closed(IEnumerable<(double X, double Y)> corners)
    {
        StringBuilder path = new();
        foreach ((double x, double y) in corners) path.Append(path.Length == 0 ? 'M' : 'L').Append(ReportText.Coordinate(x)).Append(' ').Append(ReportText.Coordinate(y));
        return path.Append('z').ToString();
    }
}
