using Qwen2Quant.Pipeline.Batch;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Rows of batch reports: single ones to vary, and a whole batch with plausible figures.</summary>
public static class BatchRows
{
    private static readonly (string Scheme, double Bits, double Kld, string Method)[] Schemes =
    [
        ("gguf:Q2_K", 3.35, 0.41, "gptq"), ("gguf:IQ2_M", 2.93, 0.58, "gptq"), ("gguf:Q3_K_M", 3.99, 0.113, "gptq"), ("gguf:IQ3_S", 3.66, 0.151, "gptq"), ("gguf:IQ4_XS", 4.46, 0.0334, "gptq"),
        ("gguf:Q4_0", 4.72, 0.0621, "rtn"), ("gguf:Q4_K_S", 4.67, 0.0352, "gptq"), ("gguf:Q4_K_M", 4.88, 0.0291, "gptq"), ("gguf:Q5_K_M", 5.71, 0.0093, "gptq"), ("gguf:Q6_K", 6.59, 0.0027, "rtn"), ("gguf:Q8_0", 8.53, 0.00071, "rtn"),
        ("gptq:w4g128", 4.65, 0.0712, "gptq"), ("gptq:w4g32-actorder", 5.02, 0.0448, "gptq"), ("awq:w4g128", 4.68, 0.0655, "awq"), ("awq:w4g128", 4.68, 0.0531, "awq+gptq"),
        ("compressed-tensors:W4A16_ASYM", 4.7, 0.0604, "gptq"), ("compressed-tensors:W8A8", 8.3, 0.0121, "smoothquant+gptq"), ("compressed-tensors:NVFP4A16", 4.98, 0.0587, "rtn"), ("mlx:w4g64", 4.84, 0.0688, "rtn"), ("fp8:block", 8.42, 0.0105, "rtn"),
    ];

    /// <summary>A measured item.</summary>
    public static BatchRow Done { get; } = new("tiny", "tiny-Q4_0", "gguf:Q4_0", "done", 1_501_024, 5.01, 12.5, 12.0, 12.5 / 12, 0.1, 0.02, 0.0004, 0.2, 0.9, 3.2, "rtn", null);

    /// <summary>An item of which only the planned size is known.</summary>
    public static BatchRow Waiting { get; } = new("tiny", "tiny-Q8_0", "gguf:Q8_0", "waiting", 2_000_000, null, null, null, null, null, null, null, null, null, null, null, null);

    /// <summary>Twenty schemes of two models, with items in every state.</summary>
    public static IReadOnlyList<BatchRow> Plausible { get; } = [.. Model("Qwen/Qwen2-0.5B-Instruct", 494e6, 13.412, 1), .. Model("Qwen/Qwen2.5-7B-Instruct", 7616e6, 7.023, 0.55)];

    private static IEnumerable<BatchRow> Model(string model, double parameters, double perplexity, double loss)
    {
        string shortName = model[(model.IndexOf('/', StringComparison.Ordinal) + 1)..];
        for (int i = 0; i < Schemes.Length; i++)
        {
            (string scheme, double bits, double kld, string method) = Schemes[i];
            double mean = kld * loss * (1 + 0.05 * Math.Sin(7 * i)), wobble = 1 + 0.004 * Math.Cos(5 * i);
            double measured = perplexity * (1 + mean * 0.8) * wobble;
            string name = $"{shortName}-{scheme.Replace(':', '-')}{(method == "awq+gptq" ? "-2" : "")}";
            BatchRow row = new(model, name, scheme, "done", (long)(parameters * bits / 8), bits, measured, perplexity, measured / perplexity, measured * 0.011, mean, mean * 0.03 + 0.00002, mean * 9, Math.Exp(-1.1 * Math.Sqrt(mean)), bits * parameters * 4e-8 * (1 + i % 3), method, null);
            yield return (loss, scheme) switch
            {
                (_, "gguf:IQ2_M") => row with { State = "rejected", Message = $"mean_kld is {mean:0.0000}, above 0.3000: kept as {name}.rejected.gguf" },
                ( < 1, "compressed-tensors:NVFP4A16") => Unmeasured(row, "failed") with { Message = "[IO-3] write: no space left on the device, 4.7 GB needed and 2.1 GB free; give --out a folder on another disk, or free some space, and run `qwen2quant batch work --retry`" },
                ( < 1, "fp8:block") => Unmeasured(row, "waiting"),
                ( < 1, "compressed-tensors:W8A8") => Unmeasured(row, "running"),
                _ => row,
            };
        }
    }

    private static BatchRow Unmeasured(BatchRow row, string state) =>
        Waiting with { Model = row.Model, Name = row.Name, Scheme = row.Scheme, State = state, Bytes = row.Bytes, BitsPerWeight = row.BitsPerWeight, Method = row.Method };
}
