using System.Text;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>Refuses tensors that could not be read back: the writer keeps the reader's rules under the default limits.</summary>
internal static class SafetensorsOutputCheck
{
    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    public static void Check(IReadOnlyList<OutputTensor> tensors, IReadOnlyDictionary<string, string> metadata)
    {
        if (tensors.Count > Limits.Default.TensorCount)
        {
            throw Fail(SafetensorsRules.CountWithinLimit, "there are too many tensors to write", null, $"at most {Limits.Default.TensorCount}", ErrorKind.Resource);
        }

        HashSet<string> names = new(StringComparer.Ordinal);
        long totalBytes = 0;
        foreach (OutputTensor tensor in tensors)
        {
            CheckTensor(tensor);
            if (!names.Add(tensor.Name)) throw Fail(SafetensorsRules.UniqueNames, "a tensor name would be written twice", tensor.Name);
            if (!CheckedMath.TryAdd(totalBytes, tensor.ByteLength, out totalBytes))
            {
                throw Fail(SafetensorsRules.SizeWithinRange, "the sizes of the tensors overflow", tensor.Name);
            }
        }

        foreach ((string key, string value) in metadata)
        {
            CountBytes(key, key, Limits.Default.StringBytes, SafetensorsRules.MetadataOfStrings);
            CountBytes(value, key, Limits.Default.StringBytes, SafetensorsRules.MetadataOfStrings);
        }
    }

    private static void CheckTensor(OutputTensor tensor)
    {
        CountBytes(tensor.Name, tensor.Name, Limits.Default.NameBytes, SafetensorsRules.NameWithinLimit);
        if (tensor.Name == "__metadata__") throw Fail(SafetensorsRules.MetadataOfStrings, "a tensor cannot have the name of the metadata", tensor.Name);
        if (SafetensorsDtypes.Of(tensor.Type) is null)
        {
            throw Fail(SafetensorsRules.KnownDtype, $"safetensors has no dtype for {tensor.Type.Name}", tensor.Name, kind: ErrorKind.Unsupported);
        }

        if (tensor.Shape.Rank > Limits.Default.SafetensorsDimensions)
        {
            throw Fail(SafetensorsRules.WholeDimensions, "a shape has too many dimensions", tensor.Name, $"at most {Limits.Default.SafetensorsDimensions}");
        }

        if (tensor.Shape.ValueCount % tensor.Type.ValuesPerBlock != 0)
        {
            throw Fail(SafetensorsRules.SizeMatches, "the values do not fill whole bytes", tensor.Name, $"a multiple of {tensor.Type.ValuesPerBlock}");
        }

        if (!CheckedMath.TryMultiply(tensor.Shape.ValueCount / tensor.Type.ValuesPerBlock, tensor.Type.BytesPerBlock, out _))
        {
            throw Fail(SafetensorsRules.SizeWithinRange, "the size of the tensor overflows", tensor.Name);
        }
    }

    private static void CountBytes(string text, string name, long maximumBytes, Rule rule)
    {
        try
        {
            if (Strict.GetByteCount(text) > maximumBytes) throw Fail(rule, "a text is too long to be written", name, $"at most {maximumBytes} bytes", ErrorKind.Resource);
        }
        catch (EncoderFallbackException)
        {
            throw Fail(SafetensorsRules.HeaderIsUtf8, "a text is not valid Unicode", name);
        }
    }

    private static QuantException Fail(Rule rule, string summary, string? tensor, string? expected = null, ErrorKind kind = ErrorKind.InvalidInput) =>
        new(kind, summary)
        {
            Rule = rule,
            Tensor = tensor,
            Expected = expected,
        };
}
