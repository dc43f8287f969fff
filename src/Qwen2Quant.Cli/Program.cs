using Qwen2Quant.Cli;

return CommandLineHost.Run(args, Console.Out, Console.Error, Console.IsErrorRedirected);
