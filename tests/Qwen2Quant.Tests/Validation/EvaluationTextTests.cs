using System.Security.Cryptography;
using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Validation;

public sealed class EvaluationTextTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("qwen2quant-text-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("builtin:text", 151_885, "501d90b860e0e6343f8841cc3be4b9e0d35612c76b8cfd99eaa6727a8175d4f9")]
    [InlineData("builtin:calibration", 500_716, "18027744e5bfcced7fb3befe51c8efaaf9e6eaec518a591ab1a934ca98b957b1")]
    public void EmbeddedTextsAreTheBytesThatReferencesWereMadeWith(string name, int bytes, string sha256)
    {
        byte[] content = Corpora.ReadBytes(name);
        Assert.Equal(bytes, content.Length);
        Assert.Equal(sha256, Convert.ToHexStringLower(SHA256.HashData(content)));
        string whole = Corpora.Read(name);
        Assert.Equal(content, Encoding.UTF8.GetBytes(whole));
        Assert.Equal(whole[..^1], Load(name).Text);
        Assert.EndsWith("\n", whole);
    }

    [Fact]
    public void EveryNameCanBeReadAndOthersAreRefused()
    {
        Assert.All(Corpora.Names, name => Assert.NotEmpty(Corpora.Read(name)));
        QuantException error = Assert.Throws<QuantException>(() => Load("builtin:wiki"));
        Assert.Equal(ErrorKind.Usage, error.Kind);
        Assert.All(Corpora.Names, name => Assert.Contains(name, error.Message));
    }

    [Theory]
    [InlineData("one\n", "one")]
    [InlineData("one\n\n", "one\n")]
    [InlineData("one\r\n", "one\r")]
    [InlineData("one", "one")]
    [InlineData("\ufeffone \\n two", "\ufeffone \\n two")]
    public void OneTrailingLineFeedIsRemovedAndNothingElse(string content, string expected)
    {
        Assert.Equal(expected, Load(Write(Encoding.UTF8.GetBytes(content))).Text);
        Assert.Equal(expected, Load("-", Encoding.UTF8.GetBytes(content)).Text);
    }

    [Theory]
    [InlineData("")]
    [InlineData("\n")]
    public void EmptyTextsAreRefused(string content)
    {
        QuantException error = Assert.Throws<QuantException>(() => Load(Write(Encoding.UTF8.GetBytes(content))));
        Assert.Equal(ErrorKind.InvalidInput, error.Kind);
        Assert.Equal(ValidationRules.UsableText, error.Rule);
        error = Assert.Throws<QuantException>(() => Load("-", Encoding.UTF8.GetBytes(content)));
        Assert.Contains("standard input", error.Message);
    }

    [Theory]
    [InlineData(new byte[] { 0x61, 0xc3, 0xa9, 0xff, 0x61 }, 3)]
    [InlineData(new byte[] { 0x61, 0x62, 0xc3 }, 2)]
    [InlineData(new byte[] { 0xed, 0xa0, 0x80 }, 0)]
    [InlineData(new byte[] { 0x61, 0xc0, 0x80 }, 1)]
    [InlineData(new byte[] { 0xff, 0xfe, 0x61, 0x00 }, 0)]
    public void InvalidUtf8IsRefusedWithItsOffset(byte[] content, long byteOffset)
    {
        string path = Write(content);
        QuantException error = Assert.Throws<QuantException>(() => Load(path));
        Assert.Equal(ErrorKind.InvalidInput, error.Kind);
        Assert.Equal(ValidationRules.UsableText, error.Rule);
        Assert.Equal(path, error.Path);
        Assert.Equal(byteOffset, error.ByteOffset);
    }

    [Fact]
    public void FilesThatCannotBeOpenedAreTypedErrors()
    {
        foreach (string path in new[] { Path.Combine(_folder, "absent.txt"), Path.Combine(_folder, "no", "folder.txt"), _folder })
        {
            QuantException error = Assert.Throws<QuantException>(() => Load(path));
            Assert.Equal(ErrorKind.InvalidInput, error.Kind);
            Assert.Equal(path, error.Path);
            Assert.Contains("builtin:text", error.Message);
        }
    }

    private static EvaluationText Load(string argument, byte[]? standardInput = null) =>
        EvaluationText.Load(DiskFileLayer.Instance, argument, new MemoryStream(standardInput ?? []));

    private string Write(byte[] content)
    {
        string path = Path.Combine(_folder, "text.txt");
        File.WriteAllBytes(path, content);
        return path;
    }
}
