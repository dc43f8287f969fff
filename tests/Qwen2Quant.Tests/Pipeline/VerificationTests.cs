using System.Security.Cryptography;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

public sealed class VerificationTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void AModelWithAValueThatIsNotFiniteFails()
    {
        string folder = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small, edit: (name, values) =>
        {
            if (name == "model.norm.weight") values[3] = float.PositiveInfinity;
        });
        QuantException error = Assert.Throws<QuantException>(() => Verify(folder));
        Assert.Same(NumericRules.NoInfinity, error.Rule);
        Assert.Equal("model.norm.weight", error.Tensor);
        Assert.Contains("row 0, column 3", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void FilesOfTheCacheMustHaveTheirHash()
    {
        if (OperatingSystem.IsWindows()) return;
        string folder = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small);
        string weights = Path.Combine(folder, "model.safetensors");
        string hash = Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(weights)));
        File.Move(weights, _folder.File(hash));
        File.CreateSymbolicLink(weights, _folder.File(hash));
        Verify(folder);

        string wrong = new('0', 64);
        File.Delete(weights);
        File.Move(_folder.File(hash), _folder.File(wrong));
        File.CreateSymbolicLink(weights, _folder.File(wrong));
        QuantException error = Assert.Throws<QuantException>(() => Verify(folder));
        Assert.Equal(ErrorKind.Verification, error.Kind);
        Assert.Equal(hash, error.Found);
    }

    private static void Verify(string model)
    {
        using Checkpoint checkpoint = Checkpoint.Open(model, new RunContext());
        Verification.Run(checkpoint, new RunContext());
    }
}
