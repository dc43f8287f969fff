using System.Text.Json.Nodes;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Packed;

/// <summary>Checkpoints that AutoAWQ, llm-compressor and mlx-lm wrote.</summary>
public sealed class PackedGoldenTests : IDisposable
{
    private readonly TempFolder _folder = new();

    /// <summary>Folder and the scheme that it has.</summary>
    public static TheoryData<string, string> Goldens => new()
    {
        { "autoawq-g128", "awq:w4g128" },
        { "llmcompressor-FP8_DYNAMIC", "compressed-tensors:FP8_DYNAMIC" },
        { "llmcompressor-NVFP4A16", "compressed-tensors:NVFP4A16" },
        { "llmcompressor-W4A16-gptq-actorder", "compressed-tensors:W4A16-actorder" },
        { "llmcompressor-W4A16_ASYM-rtn", "compressed-tensors:W4A16_ASYM" },
        { "llmcompressor-W8A8-smoothquant-gptq", "compressed-tensors:W8A8" },
        { "mlx-w3g32", "mlx:w3g32" },
        { "mlx-w4g64", "mlx:w4g64" },
    };

    public void Dispose() => _folder.Dispose();

    /// <summary>As transformers computed it from the stored codes and scales.</summary>
    [SharedTheory]
    [MemberData(nameof(Goldens))]
    public void PerplexityIsWhatTheirReadersFind(string folder, string scheme)
    {
        Assert.Equal(1, Perplexity(SharedData.Path($"models/golden/{folder}")) / Stated(folder), 1e-4);
        Assert.NotNull(PackedScheme.Parse(scheme));
    }

    /// <summary>The values of a golden in a plain folder.</summary>
    [SharedTheory]
    [MemberData(nameof(Goldens))]
    public void DequantizedTheyHaveTheSamePerplexity(string folder, string scheme)
    {
        RunContext context = new();
        using (Checkpoint source = Checkpoint.Open(SharedData.Path($"models/golden/{folder}"), context))
        {
            new Conversion(source, FolderPlanner.PlanConversion(source, PlainTypes.F32, scheme, _folder.File("plain"), long.MaxValue, context), new ConversionOptions(scheme), context).Run();
        }

        Assert.Equal(1, Perplexity(_folder.File("plain")) / Stated(folder), 1e-4);
    }

    /// <summary>A golden's integers in another layout.</summary>
    [SharedTheory]
    [InlineData("autoawq-g128", "compressed-tensors:W4A16_ASYM")]
    [InlineData("autoawq-g128", "gptq:w4g128-asym-v2")]
    [InlineData("gptqmodel-g128-4bit-asym", "awq:w4g128")]
    [InlineData("gptqmodel-g128-4bit-asym", "gptq:w4g64-asym")]
    [InlineData("gptqmodel-g64-8bit", "compressed-tensors:W8A16-g32")]
    [InlineData("gptqmodel-g64-8bit", "mlx:w8g64")]
    [InlineData("gptqmodel-moe-g128-4bit", "compressed-tensors:W4A16")]
    [InlineData("gptqmodel-moe-g128-4bit", "mlx:w4g128")]
    [InlineData("gptqmodel-moe-g128-4bit", "gguf:Q4_0")]
    [InlineData("llmcompressor-W4A16-gptq-actorder", "gptq:w4g128")]
    [InlineData("llmcompressor-W8A8-smoothquant-gptq", "gptq:w8g128")]
    [InlineData("llmcompressor-W8A8-smoothquant-gptq", "gguf:Q8_0")]
    [InlineData("llmcompressor-NVFP4A16", "compressed-tensors:NVFP4A16")]
    [InlineData("llmcompressor-FP8_DYNAMIC", "compressed-tensors:FP8_DYNAMIC")]
    [InlineData("mlx-w4g64", "gguf:Q4_1")]
    public void RepackedTheyHaveTheSamePerplexity(string folder, string scheme)
    {
        RunContext context = new();
        string output = _folder.File(scheme.StartsWith("gguf", StringComparison.Ordinal) ? "out.gguf" : "out");
        using (Checkpoint source = Checkpoint.Open(SharedData.Path($"models/golden/{folder}"), context))
        {
            ConversionPlan plan = PackedScheme.Parse(scheme) is { } packed
                ? RepackPlanner.Plan(source, packed, false, output, long.MaxValue, context)
                : RepackPlanner.Plan(source, RecipeBook.BuiltIn.Find(scheme[5..])!, false, output, context);
            ConversionReport report = new Conversion(source, plan, new ConversionOptions(scheme), context).Run();
            Assert.True(report.Tensors.Count(tensor => tensor.Solver is "exact" or "copy") >= 21);
            Assert.DoesNotContain(report.Tensors, tensor => tensor.Solver is "rtn");
        }

        Assert.Equal(1, Perplexity(output) / Stated(folder), 1e-4);
    }

    /// <summary>Rows are read in pieces, and written again through the scheme's layout.</summary>
    [SharedTheory]
    [MemberData(nameof(Goldens))]
    public void EveryByteComesBack(string folder, string scheme)
    {
        string path = SharedData.Path($"models/golden/{folder}");
        PackedLayout layout = PackedScheme.Parse(scheme)!.Layout;
        using SafetensorsCheckpoint raw = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, path, new ReadOptions());
        using Checkpoint checkpoint = Checkpoint.Open(path, new RunContext());
        int count = 0;
        foreach (TensorEntry entry in checkpoint.Raw.Tensors.Where(entry => entry.Type.IsQuantized))
        {
            byte[] rows = new byte[entry.ByteLength];
            for (int at = 0; at < rows.Length; at += 1001) checkpoint.Raw.ReadRaw(entry, at, rows.AsSpan(at, Math.Min(1001, rows.Length - at)));
            Assert.True(layout.Fits(entry.Type, entry.Shape));
            OutputTensor[] parts = [.. layout.Parts(entry.Name, entry.Type, entry.Shape)];
            MemoryWriteFile[] files = [.. parts.Select(part => new MemoryWriteFile((int)part.ByteLength))];
            IScatteredTarget target = layout.Target(entry.Type, entry.Shape, [.. parts.Select((part, i) => (i, new PlannedTensor(part, 0)))]);
            const int rowsAtOnce = 64;
            int rowBytes = (int)entry.Type.ByteCount(entry.Shape.RowLength);
            for (int row = 0; row < entry.Shape.RowCount; row += rowsAtOnce)
            {
                target.Write(files, row, rows.AsSpan(row * rowBytes, Math.Min(rowsAtOnce, (int)entry.Shape.RowCount - row) * rowBytes), []);
            }

            for (int part = 0; part < parts.Length; part++)
            {
                TensorEntry theirs = raw.Find(parts[part].Name)!;
                Assert.Same(theirs.Type, parts[part].Type);
                byte[] expected = new byte[theirs.ByteLength];
                raw.ReadRaw(theirs, 0, expected);
                Assert.Equal(expected, files[part].Bytes);
            }

            count++;
        }

        Assert.True(count >= 21);
    }

    /// <summary>The same scheme of the same model by their writer and by this program: the same tensors, and what their configuration says in ours.</summary>
    [SharedTheory]
    [MemberData(nameof(Goldens))]
    public void OutputsAreLaidOutAsTheirs(string folder, string scheme)
    {
        RunContext context = new();
        using (Checkpoint source = Checkpoint.Open(SharedData.Path("models/tiny-qwen2"), context))
        {
            ConversionPlan plan = PackedPlanner.Plan(source, PackedScheme.Parse(scheme)!, new QuantizationOptions(), _folder.File("out"), long.MaxValue, context);
            ConversionReport report = new Conversion(source, plan, new ConversionOptions(scheme), context).Run();
            Assert.DoesNotContain(report.Events, item => item.IsSubstitution);
        }

        using SafetensorsCheckpoint ours = Raw(_folder.File("out")), theirs = Raw(SharedData.Path($"models/golden/{folder}"));
        // AutoAWQ kept this embedding in single precision, and notes in its metadata that the output is tied to it.
        Assert.Equal(Names(theirs, folder), Names(ours, folder));
        Assert.Equal(theirs.Files[0].Metadata["format"], ours.Files[0].Metadata["format"]);
        JsonNode our = Config(_folder.File("out")), their = Config(SharedData.Path($"models/golden/{folder}"));
        Check("", their, our);

        static SafetensorsCheckpoint Raw(string path) => SafetensorsCheckpoint.Open(DiskFileLayer.Instance, path, new ReadOptions());
        static JsonNode Config(string path) => JsonNode.Parse(File.ReadAllBytes(Path.Combine(path, "config.json")))!["quantization_config"]!;
        static string[] Names(SafetensorsCheckpoint checkpoint, string folder) =>
            [.. checkpoint.Tensors.Where(entry => folder != "autoawq-g128" || entry.Name.Contains(".q_proj.", StringComparison.Ordinal) || !entry.Name.Contains("norm", StringComparison.Ordinal) && !entry.Name.Contains("embed", StringComparison.Ordinal)).Select(entry => $"{entry.Name} {entry.Type} {entry.Shape}").Order(StringComparer.Ordinal)];
    }

    /// <summary>MLX's own formula, from the same model: every byte of its tensors.</summary>
    [SharedTheory]
    [InlineData("mlx-w3g32", "mlx:w3g32")]
    [InlineData("mlx-w4g64", "mlx:w4g64")]
    public void TheReferenceEffortWritesWhatMlxWrites(string folder, string scheme)
    {
        RunContext context = new();
        using (Checkpoint source = Checkpoint.Open(SharedData.Path("models/tiny-qwen2"), context))
        {
            ConversionPlan plan = PackedPlanner.Plan(source, PackedScheme.Parse(scheme)!, new QuantizationOptions(), _folder.File("out"), long.MaxValue, context);
            _ = new Conversion(source, plan, new ConversionOptions(scheme, Effort: Effort.Reference), context).Run();
        }

        using SafetensorsCheckpoint ours = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, _folder.File("out"), new ReadOptions());
        using SafetensorsCheckpoint theirs = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, SharedData.Path($"models/golden/{folder}"), new ReadOptions());
        foreach (TensorEntry entry in theirs.Tensors)
        {
            byte[] expected = new byte[entry.ByteLength], actual = new byte[entry.ByteLength];
            theirs.ReadRaw(entry, 0, expected);
            ours.ReadRaw(ours.Find(entry.Name)!, 0, actual);
            Assert.True(expected.AsSpan().SequenceEqual(actual), entry.Name);
        }
    }

    private static double Stated(string folder) =>
        (double)JsonNode.Parse(File.ReadAllBytes(SharedData.Path("models/golden/index.json")))!["checkpoints"]!.AsArray().Single(item => (string)item!["folder"]! == folder)!["perplexity"]!;

    private static double Perplexity(string path)
    {
        RunContext context = new() { Exact = true };
        using Checkpoint checkpoint = Checkpoint.Open(path, context);
        EvaluationText text = EvaluationText.Load(context.Files, SharedData.Path("data/text/heldout.txt"), Stream.Null);
        PerplexityResult result = Proof.Perplexity(checkpoint, text, new WindowOptions { Context = 256, Chunks = 8, Protocol = ScoringProtocol.Full }, context);
        Assert.Equal(2040, result.Tokens);
        return result.Perplexity;
    }

    /// <summary>Every value of theirs is ours, but for what only their tools look at.</summary>
    private static void Check(string at, JsonNode their, JsonNode? our)
    {
        if (their is not JsonObject theirs)
        {
            Assert.True(JsonNode.DeepEquals(their, our), $"{at}: {their} and {our}");
            return;
        }

        foreach ((string key, JsonNode? value) in theirs)
        {
            // Recent additions, which older readers refuse, and notes.
            if (key is "scale_dtype" or "zp_dtype" or "observer" or "version" or "sparsity_config" or "transform_config") continue;
            // Repeated for each group.
            if (key == "format" && at.Length > 0) continue;
            JsonNode? own = our is JsonObject ours && ours.ContainsKey(key) ? ours[key] : null;
            if (value is null) Assert.Null(own);
            // Two names of the same; this one was solved in an order that its scheme does not ask for.
            else if (key == "actorder") Assert.Contains((string?)own, (string?[])["static", "weight", null]);
            else Check($"{at}/{key}", value, own);
        }
    }
}
