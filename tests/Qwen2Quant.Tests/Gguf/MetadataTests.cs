using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Tests.Gguf;

public class MetadataTests
{
    [Fact]
    public void Setting_an_existing_key_moves_it_to_the_end()
    {
        GgufMetadata metadata = new();
        metadata.Set("a", GgufValue.Scalar(1u));
        metadata.Set("b", GgufValue.Scalar(2u));
        metadata.Set("c", GgufValue.Scalar(3u));
        metadata.Set("a", GgufValue.String("new"));
        Assert.Equal(["b", "c", "a"], metadata.Select(pair => pair.Key));
        Assert.Equal("new", metadata.Find("a")!.ToString());
        Assert.True(metadata.Remove("c"));
        Assert.False(metadata.Remove("c"));
        Assert.Equal(2, metadata.Count);
        GgufMetadata copy = metadata.Clone();
        copy.Remove("a");
        Assert.Equal((2, 1), (metadata.Count, copy.Count));
    }

    [Fact]
    public void Integers_of_any_width_are_read_when_they_fit()
    {
        GgufMetadata metadata = new();
        metadata.Set("u8", GgufValue.Scalar((byte)32));
        metadata.Set("i32", GgufValue.Scalar(32));
        metadata.Set("u64", GgufValue.Scalar(32UL));
        metadata.Set("negative", GgufValue.Scalar(-1L));
        metadata.Set("huge", GgufValue.Scalar(ulong.MaxValue));
        foreach (string key in new[] { "u8", "i32", "u64" })
        {
            Assert.True(metadata.TryGetInteger(key, out uint value));
            Assert.Equal(32u, value);
        }

        Assert.False(metadata.TryGetInteger("absent", out uint _));
        Assert.True(metadata.TryGetInteger("huge", out ulong large));
        Assert.Equal(ulong.MaxValue, large);
        Unusable(() => metadata.TryGetInteger("negative", out uint _), "negative");
        Unusable(() => metadata.TryGetInteger("huge", out long _), "huge");
        Assert.True(metadata.TryGetFloat("i32", out float real));
        Assert.Equal(32, real);
    }

    [Fact]
    public void A_value_of_another_kind_is_an_error_and_not_absence()
    {
        GgufMetadata metadata = new("m.gguf");
        metadata.Set("text", GgufValue.String("x"));
        metadata.Set("number", GgufValue.Scalar(1.5));
        metadata.Set("texts", GgufValue.StringArray(["x"]));
        Unusable(() => metadata.TryGetInteger("text", out int _), "text");
        Unusable(() => metadata.TryGetInteger("number", out int _), "number");
        Unusable(() => metadata.TryGetInteger("texts", out int _), "texts");
        Unusable(() => metadata.TryGetFloat("text", out _), "text");
        Unusable(() => metadata.TryGetBool("number", out _), "number");
        Unusable(() => metadata.TryGetString("number", out _), "number");
        Unusable(() => metadata.TryGetString("texts", out _), "texts");
        Unusable(() => metadata.TryGetStringArray("text", out _), "text");
        Unusable(() => metadata.TryGetIntegerArray<int>("texts", out _), "texts");
        Unusable(() => metadata.TryGetFloatArray("texts", out _), "texts");
        QuantException error = Assert.Throws<QuantException>(() => metadata.TryGetBool("text", out _));
        Assert.Equal("m.gguf: metadata has an unusable value 'text': found String x, expected a boolean", error.Message);
    }

    [Fact]
    public void Arrays_are_read_across_widths()
    {
        GgufMetadata metadata = new();
        metadata.Set("u32", GgufValue.Array([1u, 2u]));
        metadata.Set("f64", GgufValue.Array([0.5, 2]));
        metadata.Set("empty", GgufValue.Array<int>([]));
        metadata.Set("negative", GgufValue.Array([1, -1]));
        Assert.True(metadata.TryGetIntegerArray("u32", out int[]? integers));
        Assert.Equal([1, 2], integers);
        Assert.True(metadata.TryGetFloatArray("f64", out float[]? floats));
        Assert.Equal([0.5f, 2], floats);
        Assert.True(metadata.TryGetStringArray("empty", out string[]? texts));
        Assert.Empty(texts);
        Unusable(() => metadata.TryGetIntegerArray<uint>("negative", out _), "negative");
    }

    [Fact]
    public void Values_are_shown_in_invariant_spelling()
    {
        Assert.Equal(["-7", "1.5", "0.1", "true", "a\\u{1b}b", "Int32[2]", "18446744073709551615"],
        [
            GgufValue.Scalar((sbyte)-7).ToString(), GgufValue.Scalar(1.5f).ToString(), GgufValue.Scalar(0.1).ToString(), GgufValue.Scalar(true).ToString(),
            GgufValue.String("a\u001bb").ToString(), GgufValue.Array([1, 2]).ToString(), GgufValue.Scalar(ulong.MaxValue).ToString(),
        ]);
    }

    [Fact]
    public void Equality_looks_at_type_and_bytes()
    {
        Assert.NotEqual(GgufValue.Scalar(1), GgufValue.Scalar(1u));
        Assert.NotEqual(GgufValue.StringArray(["ab", "c"]), GgufValue.StringArray(["a", "bc"]));
        Assert.Equal(GgufValue.StringArray(["ab", "c"]), GgufValue.StringArray(["ab", "c"]));
        Assert.Equal(GgufValue.Scalar(1).GetHashCode(), GgufValue.Scalar(1).GetHashCode());
        Assert.NotEqual(GgufValue.Nested([GgufValue.Array([1])]), GgufValue.Nested([GgufValue.Array([2])]));
        Assert.Throws<ArgumentException>(() => GgufValue.Scalar('c'));
        Assert.Throws<ArgumentException>(() => GgufValue.Nested([GgufValue.Scalar(1)]));
        Assert.Throws<InvalidOperationException>(() => GgufValue.Scalar(1).GetString());
    }

    [Fact]
    public void Tensors_are_ordered_by_layer_then_name()
    {
        string[] names = ["blk.10.a", "blk.2.b", "token_embd.weight", "blk.2.a", "output.weight", "blk.x.a", "output_norm.weight", "blk.0.ffn_up.weight"];
        string[] expected = ["blk.x.a", "output.weight", "output_norm.weight", "token_embd.weight", "blk.0.ffn_up.weight", "blk.2.a", "blk.2.b", "blk.10.a"];
        Assert.Equal(expected, names.Order(GgufTensorOrder.Instance));
    }

    private static void Unusable(Action read, string key)
    {
        QuantException error = Assert.Throws<QuantException>(read);
        Assert.Equal((ErrorKind.InvalidInput, key), (error.Kind, error.Tensor));
    }
}
