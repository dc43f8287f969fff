using BenchmarkDotNet.Running;
using Qwen2Quant.Benchmarks;
using Qwen2Quant.Benchmarks.Encoders;
using Qwen2Quant.Benchmarks.Presets;
using Qwen2Quant.Benchmarks.RandomModels;
using Qwen2Quant.Core.Errors;

const string usage = """
    usage: random-model --shape 0.5B|1.5B|7B|72B|tiny --out DIR [--format safetensors|gguf] [--seed N]
                        [--layers N] [--shard-size BYTES] [--tokenizer DIR] [--threads N]
               writes a Qwen2 checkpoint of random BF16 weights
           llama-quantize IN.gguf OUT.gguf TYPE [--threads N] [--imatrix FILE] [--pure] [--allow-requantize]
               runs llama.cpp's own quantizer and prints how long it took until the output was on the disk
           forward FILE.gguf,... [--tokens 512] [--generate 32] [--threads N] [--repeats 4] [--exact] [--alone]
               tokens per second of the forward pass, beside llama.cpp's on the same files
           encoders [--types A,B] [--efforts fast,normal,high] [--models FOLDER|FILE.gguf,...] [--rows gaussian,laplace,outliers] [--time]
                    [--imatrix FILE] [--table FILE.md]
               error and speed of the block encoders against ggml's
           presets MODEL-BF16.gguf [--presets A,B] [--effort normal] [--chunks 8] [--imatrix FILE] [--imatrix-only]
               KL divergence of every preset, made by llama.cpp and by this program
           tokenizer [--tokenizer DIR]
               tokens per second of the tokenizer on English prose and on mixed text; by default with Qwen2.5's vocabulary
           micro [BenchmarkDotNet's options]
               micro-benchmarks
    """;

try
{
    switch (args.FirstOrDefault())
    {
        case "random-model":
            RandomModelCommand.Run(new CommandArguments(args[1..]));
            return 0;
        case "llama-quantize":
            LlamaQuantizeCommand.Run(new CommandArguments(args[1..]));
            return 0;
        case "forward":
            ForwardCommand.Run(new CommandArguments(args[1..]));
            return 0;
        case "encoders":
            EncoderCommand.Run(new CommandArguments(args[1..]));
            return 0;
        case "presets":
            PresetCommand.Run(new CommandArguments(args[1..]));
            return 0;
        case "tokenizer":
            TokenizerCommand.Run(new CommandArguments(args[1..]));
            return 0;
        case "micro":
            BenchmarkSwitcher.FromAssembly(typeof(Program).Assembly).Run(args[1..]);
            return 0;
        default:
            Console.Error.WriteLine(usage);
            return 2;
    }
}
catch (UsageException error)
{
    Console.Error.WriteLine($"{error.Message}\n{usage}");
    return 2;
}
catch (Exception error) when (error is QuantException or IOException or UnauthorizedAccessException or InvalidOperationException)
{
    Console.Error.WriteLine(error.Message);
    return 1;
}
