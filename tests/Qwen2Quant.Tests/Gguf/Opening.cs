using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Gguf;

internal static class Opening
{
    public static GgufFile Open(byte[] bytes, EventLog? events = null) =>
        GgufFile.Open(new MemoryReadFile("model.gguf", bytes), new ReadOptions { Events = events ?? new EventLog() });

    public static GgufFile Open(RawGguf raw, EventLog? events = null) => Open(raw.Build(), events);

    public static IReadOnlyList<GgufPart> Inspect(RawGguf raw) =>
        GgufFile.Inspect(new MemoryFolder { ["model.gguf"] = raw.Build() }, "model.gguf", new ReadOptions());
}
