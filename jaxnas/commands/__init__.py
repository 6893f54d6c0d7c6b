"""The commands, one file each, and what they are for."""

COMMANDS = {
    "search": "search a space, train the winner on, save it (the default)",
    "ship": "from a body of code to a model that other software runs, in one budget",
    "train": "a model trained for long on a corpus of your own",
    "compress": "a trained model made smaller: pruned, trained on, rounded",
    "distil": "a small model trained on what a larger one of its tokenizer expects",
    "space": "counts and samples of a search space",
    "front": "the exact Pareto front of every model of a space, by its costs",
    "automl": "the best shapes for a spec of a large model, by their costs",
    "explain": "where a shape's parameters, memory and milliseconds go",
    "compare": "what shapes of large models cost, side by side",
    "baselines": "the reference architectures with their costs",
    "calibrate": "how long models take on this device, to predict others' latency",
    "generate": "text from a saved model, as it is drawn",
    "evaluate": "what saved models are worth on files not trained on",
    "serve": "completions for editors, over HTTP",
    "verify": "whether the files of a run belong together, and what is lost if not",
    "export": "a model as a folder that Hugging Face's transformers loads",
    "import": "the reverse: a folder of transformers as a model",
}
