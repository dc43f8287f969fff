using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Compatibility;

/// <summary>A model as a BF16 GGUF file with its importance matrix, both made by the program.</summary>
public sealed class WeighedModel
{
    private readonly string _imatrixPath;
    private readonly Imatrix _imatrix;

    public WeighedModel(string model, string folder)
    {
        PlainPath = Path.Combine(folder, "plain.gguf");
        _imatrixPath = Path.Combine(folder, "imatrix.gguf");
        Directory.CreateDirectory(folder);
        CliCommand.Succeed("convert", model, "--to", "gguf", "--type", "bf16", "--out", PlainPath);
        CliCommand.Succeed("calibrate", PlainPath, "--data", "builtin:calibration", "--samples", "16", "--context", "256", "--out", _imatrixPath);
        _imatrix = ImatrixReader.Read(DiskFileLayer.Instance, _imatrixPath, new ReadOptions());
        Weights = _imatrix.MeanSquares();
    }

    public string PlainPath { get; }

    /// <summary>Mean squared inputs by tensor, as llama.cpp's quantizer takes them.</summary>
    public IReadOnlyDictionary<string, float[]> Weights { get; }

    /// <summary>In this process: one of its own for each of many files would take most of the time.</summary>
    public void Quantize(string preset, bool hasImatrix, Effort effort, string path)
    {
        RunContext context = new();
        using Checkpoint source = Checkpoint.Open(PlainPath, context);
        Importance? importance = hasImatrix ? Importance.Create(_imatrix, source.Tensors.Catalogue, _imatrixPath, ImportanceFilter.All, strict: false, context) : null;
        ConversionPlan plan = GgufPlanner.PlanQuantization(source, RecipeBook.BuiltIn.Find(preset)!, new QuantizationOptions { Importance = importance }, path, context);
        new Conversion(source, plan, new ConversionOptions($"gguf:{preset}", Force: true, Effort: effort), context).Run();
    }
}

/// <summary>The two models, made when first asked for.</summary>
public sealed class WeighedModels : IDisposable
{
    private readonly TempFolder _folder = new();
    private WeighedModel? _tiny, _experts;

    public WeighedModel Tiny => _tiny ??= new WeighedModel(Models.Tiny, _folder.File("tiny"));

    public WeighedModel Experts => _experts ??= new WeighedModel(SharedData.Path("models/tiny-qwen2moe"), _folder.File("experts"));

    public void Dispose() => _folder.Dispose();
}
