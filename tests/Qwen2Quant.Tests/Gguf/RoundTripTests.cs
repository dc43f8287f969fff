using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Tests.Gguf;

/// <summary>What is planned and written is read back as it was, for random metadata and tensors.</summary>
public class RoundTripTests
{
    private const int Seed = 20240917, Rounds = 400;

    [Fact]
    public void Random_models_are_read_back_as_they_were_written()
    {
        Random random = new(Seed);
        for (int round = 0; round < Rounds; round++)
        {
            GgufMetadata metadata = new();
            for (int i = random.Next(12); i > 0; i--) metadata.Set(RandomKey(random), RandomValue(random));
            if (random.Next(3) == 0) metadata.Set("general.alignment", GgufValue.Scalar(1u << random.Next(13)));
            OutputTensor[] tensors = [.. Enumerable.Range(0, random.Next(8)).Select(i => RandomTensor(random, i))];
            PlannedFile plan = GgufPlan.Create(metadata, tensors, "m.gguf");
            byte[] bytes = Planned.Write(plan);

            EventLog events = new();
            using GgufFile file = Opening.Open(bytes, events);
            string context = $"seed {Seed}, round {round}";
            Assert.True(metadata.SequenceEqual(file.Metadata), context);
            Assert.DoesNotContain(events.Events, e => e.Code != "gguf-string-not-utf8");
            Assert.Equal(tensors, file.Tensors.Select(tensor => new OutputTensor(tensor.Name, tensor.Type, tensor.Shape)));
            for (int t = 0; t < tensors.Length; t++)
            {
                byte[] raw = new byte[tensors[t].ByteLength];
                file.ReadRaw(file.Tensors[t], 0, raw);
                for (int i = 0; i < raw.Length; i++) Assert.Equal((byte)((t * 37) + i + 1), raw[i]);
            }

            PlannedFile again = GgufPlan.Create(file.Metadata, tensors, "m.gguf");
            Assert.True(plan.Header.AsSpan().SequenceEqual(again.Header), context);
        }
    }

    private static string RandomKey(Random random)
    {
        const string Alphabet = "abcz019_";
        return string.Join('.', Enumerable.Range(0, 1 + random.Next(3)).Select(_ => new string([.. Enumerable.Range(0, 1 + random.Next(5)).Select(_ => Alphabet[random.Next(Alphabet.Length)])])));
    }

    private static GgufValue RandomValue(Random random)
    {
        int count = 1 + random.Next(4);
        return random.Next(16) switch
        {
            0 => GgufValue.Scalar((byte)random.Next()),
            1 => GgufValue.Scalar((sbyte)random.Next()),
            2 => GgufValue.Scalar((ushort)random.Next()),
            3 => GgufValue.Scalar((short)random.Next()),
            4 => GgufValue.Scalar((uint)random.NextInt64()),
            5 => GgufValue.Scalar((int)random.NextInt64()),
            6 => GgufValue.Scalar(BitConverter.Int32BitsToSingle((int)random.NextInt64())),
            7 => GgufValue.Scalar(random.Next(2) == 1),
            8 => GgufValue.Scalar((ulong)random.NextInt64() * 3),
            9 => GgufValue.Scalar(random.NextInt64()),
            10 => GgufValue.Scalar(BitConverter.Int64BitsToDouble(random.NextInt64())),
            11 => GgufValue.String(RandomBytes(random, 1 + random.Next(20))),
            12 => GgufValue.StringArray([.. Enumerable.Range(0, count).Select(i => new string('\u0120', i))]),
            13 => GgufValue.Array([.. Enumerable.Range(0, count).Select(_ => random.Next(2) == 1)]),
            14 => GgufValue.Array<short>([.. Enumerable.Range(0, count).Select(_ => (short)random.Next())]),
            _ => GgufValue.Array<double>([.. Enumerable.Range(0, count).Select(_ => random.NextDouble())]),
        };
    }

    private static byte[] RandomBytes(Random random, int length)
    {
        byte[] bytes = new byte[length];
        random.NextBytes(bytes);
        return bytes;
    }

    private static OutputTensor RandomTensor(Random random, int index)
    {
        ElementType[] types = [PlainTypes.F32, PlainTypes.F16, PlainTypes.BF16, PlainTypes.I8, PlainTypes.F64];
        long[] dimensions = [.. Enumerable.Range(0, 1 + random.Next(4)).Select(_ => (long)random.Next(5))];
        return new OutputTensor($"t{index}.weight", types[random.Next(types.Length)], new Shape(dimensions));
    }
}
