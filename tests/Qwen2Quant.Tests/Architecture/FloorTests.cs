using System.Xml.Linq;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Architecture;

/// <summary>The house rules that can be read off the tree.</summary>
public sealed class FloorTests
{
    private static readonly Dictionary<string, int> Floors = new(StringComparer.Ordinal)
    {
        ["Qwen2Quant.Core"] = 0,
        ["Qwen2Quant.Model"] = 1,
        ["Qwen2Quant.Quantization"] = 1,
        ["Qwen2Quant.Formats"] = 1,
        ["Qwen2Quant.Validation"] = 2,
        ["Qwen2Quant.Pipeline"] = 3,
        ["Qwen2Quant.Cli"] = 4,
    };

    [Fact]
    public void ProjectsReferenceLowerFloorsOnly()
    {
        int seen = 0;
        foreach (string project in Repository.Files("*.csproj"))
        {
            string name = Path.GetFileNameWithoutExtension(project);
            if (!Floors.TryGetValue(name, out int floor)) continue;
            seen++;
            IEnumerable<string> references = XDocument.Load(project).Descendants("ProjectReference")
                .Select(reference => Path.GetFileNameWithoutExtension(((string)reference.Attribute("Include")!).Replace('\\', '/')));
            foreach (string reference in references)
            {
                Assert.True(Floors[reference] < floor, $"{name} (floor {floor}) references {reference} (floor {Floors[reference]})");
            }
        }

        Assert.Equal(Floors.Count, seen);
    }

    [Fact]
    public void OnlyTheCommandLineSeesTheTerminalPackages()
    {
        foreach (string project in Repository.Files("*.csproj").Where(path => Path.GetFileNameWithoutExtension(path) != "Qwen2Quant.Cli"))
        {
            string text = File.ReadAllText(project);
            Assert.DoesNotContain("\"Spectre.Console\"", text, StringComparison.Ordinal);
            Assert.DoesNotContain("\"System.CommandLine\"", text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void FilesStayShort()
    {
        const int ceiling = 400;
        string[] tooLong = [.. Repository.Files("*.cs").Where(path => File.ReadLines(path).Count() > ceiling)];
        Assert.Empty(tooLong);
    }
}
