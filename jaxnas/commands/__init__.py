"""The commands, one file each, and what they are for."""

COMMANDS = {
    "search": "search a space, train the winner on, save it (the default)",
    "ship": "from a body of code to a model that other software runs, in one budget",
    "train": "a model trained for long on a corpus of your own",
    "status": "how far a run is, also of one that goes on",
    "report": "a run as one page: what it found, how, and where the time went",
    "show": "a model drawn: its parts, parameters, bytes, ms, memory of a training",
    "space": "counts and samples of a search space",
    "front": "the exact Pareto front of every model of a space, by its costs",
    "automl": "the best shapes for a spec of a large model, by their costs",
    "explain": "where a shape's parameters, memory and milliseconds go",
    "compare": "shapes of large models by their costs, or searches, side by side",
    "baselines": "the reference architectures with their costs",
    "calibrate": "how long models take on this device, to predict others' latency",
    "generate": "text from a saved model, as it is drawn",
    "evaluate": "what saved models are worth on files not trained on",
    "serve": "completions for editors, over HTTP",
    "export": "a model as a folder that Hugging Face's transformers loads",
    "import": "the reverse: a folder of transformers as a model",
}
