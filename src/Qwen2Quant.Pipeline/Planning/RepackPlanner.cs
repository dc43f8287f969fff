using System.Text.RegularExpressions;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Float;
using Qwen2Quant.Formats.Packed.Mlx;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>
/// Plans the same integers in another layout. What the source has plain stays plain; a quantized matrix is taken over where the target's grid holds its very values,
/// which reading all of them shows, and otherwise refused or, if that is allowed, rounded once more. Matrices that the layout has no place for become plain, which is an event.
/// </summary>
public static class RepackPlanner
{
    /// <summary>Rows looked at in one task.</summary>
    private const int RowsPerTask = 256;

    // Enough to see what is wrong.
    private const int NamesShown = 8;

    /// <summary>Plans a packed folder.</summary>
    /// <param name="allowRequantize">Rounds what the target cannot hold.</param>
    /// <exception cref="QuantException">The target cannot hold a matrix, or nothing of the source is quantized.</exception>
    public static ConversionPlan Plan(Checkpoint source, PackedScheme scheme, bool allowRequantize, string target, long maxShardBytes, RunContext context)
    {
        RequireQuantized(source);
        return Check(source, PackedPlanner.Plan(source, scheme, new QuantizationOptions { AllowRequantize = true, KeepsPlain = true, ScaleType = ScaleType(source) }, target, maxShardBytes, context), scheme.ToString(), allowRequantize, context);
    }

    /// <summary>Plans a GGUF file whose quantized matrices have the recipe's plain type.</summary>
    /// <param name="allowRequantize">As above.</param>
    /// <exception cref="QuantException">As above.</exception>
    public static ConversionPlan Plan(Checkpoint source, Recipe recipe, bool allowRequantize, string target, RunContext context)
    {
        RequireQuantized(source);
        List<TensorTypeOverride> plain = [];
        foreach (GgufTensor tensor in GgufNames.Plan(source.Tensors.Catalogue))
        {
            ElementType type = StoredType(source, tensor.Parts[0].Name);
            if (!type.IsQuantized && tensor.Shape.Rank > 1) plain.Add(new TensorTypeOverride(new Regex($"^{Regex.Escape(tensor.Name)}$", RegexOptions.CultureInvariant), type));
        }

        QuantizationOptions options = new() { AllowRequantize = true, Types = new RecipeOptions { Pure = true, TensorTypes = plain } };
        return Check(source, GgufPlanner.PlanQuantization(source, recipe, options, target, context), $"gguf:{recipe.Name}", allowRequantize, context);
    }

    private static ElementType StoredType(Checkpoint source, string name) => source.Raw.FindStored(name)?.Type ?? source.Tensors.Find(name)!.Type;

    /// <summary>The precision of the source's scales: bfloat16 where its integers say so, else that of halves, which ggml's blocks have.</summary>
    private static ElementType ScaleType(Checkpoint source)
    {
        foreach (TensorEntry entry in source.Tensors.Tensors)
        {
            ElementType? scale = StoredType(source, entry.Name) switch { IntegerGridType grid => grid.ScaleType, AffineGridType grid => grid.ScaleType, Fp8Type grid => grid.ScaleType, _ => null };
            if (ReferenceEquals(scale, PlainTypes.BF16)) return scale;
        }

        return PlainTypes.F16;
    }

    private static void RequireQuantized(Checkpoint source)
    {
        if (source.Tensors.Tensors.Any(entry => StoredType(source, entry.Name).IsQuantized)) return;
        throw new QuantException(ErrorKind.Usage, "repack takes over integers, and the model has none") { Path = source.Location.Path, Remedy = "Use quantize." };
    }

    private static ConversionPlan Check(Checkpoint source, ConversionPlan plan, string scheme, bool allowRequantize, RunContext context)
    {
        bool[] holds = [.. plan.Items.Select(item => !item.IsCopy)];
        List<(int Item, TensorEntry Part, long Row)> tasks = [];
        foreach ((int index, PlanItem item) in plan.Items.Index())
        {
            ElementType type = item.Target.Tensor.Type;
            if (!holds[index]) continue;
            holds[index] = !type.IsQuantized || item.Parts.All(part => part.Type.IsQuantized && ExactRows.Create(part.Type, type, checked((int)part.Shape.RowLength)) is not null);
            if (!holds[index]) continue;
            foreach (TensorEntry part in item.Parts)
            {
                for (long row = 0; row < part.Shape.RowCount; row += RowsPerTask) tasks.Add((index, part, row));
            }
        }

        using (IProgressTask progress = context.Progress.Start("Checking", tasks.Count, "slabs"))
        {
            Workers.Run(context.Threads, tasks.Count, static () => 0, (at, _) =>
            {
                (int index, TensorEntry part, long row) = tasks[at];
                if (Volatile.Read(ref holds[index]) && !Holds(source.Tensors, part, row, plan.Items[index].Target.Tensor.Type)) Volatile.Write(ref holds[index], false);
                progress.Advance(1);
            }, context.Cancellation);
        }

        PlanItem[] items = [.. plan.Items.Select((item, index) => item with { IsExact = holds[index] && item.Target.Tensor.Type.IsQuantized })];
        PlanItem[] lossy = [.. items.Where(item => item.Target.Tensor.Type.IsQuantized && !item.IsCopy && !item.IsExact)];
        if (lossy.Length > 0 && !allowRequantize) throw CannotHold(source, scheme, lossy);
        IEnumerable<QuantEvent> events = plan.Events.Where(known => known.Code != "requantized")
            .Concat(lossy.Select(item => new QuantEvent("requantized", $"{item.Name}: {item.Target.Tensor.Type.Name} does not hold the values of {StoredType(source, item.Parts[0].Name).Name}; rounded once more", item.Name)))
            .Concat(items.Index().Select(pair => PlainNote(source, pair.Item, holds[pair.Index])).OfType<QuantEvent>());
        return plan with { Items = items, Events = [.. events] };
    }

    /// <summary>What is to be said of a tensor that is plain in the output.</summary>
    private static QuantEvent? PlainNote(Checkpoint source, PlanItem item, bool holds)
    {
        if (item.IsCopy || item.Target.Tensor.Type.IsQuantized) return null;
        ElementType from = StoredType(source, item.Parts[0].Name);
        string rounded = holds ? "" : ", which rounds its values";
        if (from.IsQuantized) return new QuantEvent("dequantized", $"{item.Name}: the layout has no place for {from.Name}; written as {item.Target.Tensor.Type.Name}{rounded}", item.Name);
        return holds ? null : new QuantEvent("rounded", $"{item.Name}: {from.Name} in the source, written as {item.Target.Tensor.Type.Name}{rounded}", item.Name);
    }

    private static bool Holds(CanonicalView tensors, TensorEntry part, long firstRow, ElementType type)
    {
        int rowLength = (int)part.Shape.RowLength, count = (int)Math.Min(RowsPerTask, part.Shape.RowCount - firstRow), rowBytes = (int)part.Type.ByteCount(rowLength);
        byte[] rows = new byte[count * rowBytes], encoded = new byte[type.ByteCount(rowLength)];
        tensors.ReadRaw(part, firstRow * rowBytes, rows);
        if (!type.IsQuantized) return HoldsPlain(part.Type, rows, type, new float[count * rowLength]);
        ExactRows exact = ExactRows.Create(part.Type, type, rowLength)!;
        for (int row = 0; row < count; row++)
        {
            if (!exact.TryWrite(rows.AsSpan(row * rowBytes, rowBytes), encoded)) return false;
        }

        return true;
    }

    private static bool HoldsPlain(ElementType from, ReadOnlySpan<byte> rows, ElementType to, Span<float> values)
    {
        byte[] encoded = new byte[to.ByteCount(values.Length)];
        float[] decoded = new float[values.Length];
        from.Decode(rows, values);
        to.EncodeRow(values, default, Effort.Reference, encoded);
        to.Decode(encoded, decoded);
        return values.SequenceEqual(decoded);
    }

    private static QuantException CannotHold(Checkpoint source, string scheme, PlanItem[] lossy)
    {
        PlanItem first = lossy[0];
        string names = string.Join(", ", lossy.Take(NamesShown).Select(item => item.Name)) + (lossy.Length > NamesShown ? $" and {lossy.Length - NamesShown} more" : "");
        bool isPermuted = !first.Parts[0].Type.IsQuantized;
        return new QuantException(ErrorKind.InvalidInput, $"{scheme} cannot hold the values of {lossy.Length} quantized matrices: {names}")
        {
            Rule = PipelineRules.SourceNotQuantized,
            Path = source.Location.Path,
            Tensor = first.Name,
            Found = StoredType(source, first.Parts[0].Name).Name + (isPermuted ? " in permuted groups" : ""),
            Expected = $"a type whose values are some of {first.Target.Tensor.Type.Name}'s",
            Remedy = "Choose a scheme with as many bits, groups no longer and zeros of its own (-asym), quantize the original model, or pass --allow-requantize to round once more.",
        };
    }
}
