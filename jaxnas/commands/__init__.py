"""The commands, one file each, and what they are for."""

COMMANDS = {
    "search": "search a space, train the winner on, save it (the default)",
    "space": "counts and samples of a search space",
    "front": "the exact Pareto front of every model of a space, by its costs",
    "automl": "the best shapes for a spec of a large model, by their costs",
    "explain": "where a shape's parameters, memory and milliseconds go",
    "compare": "what shapes of large models cost, side by side",
    "baselines": "the reference architectures with their costs",
    "calibrate": "how long models take on this device, to predict others' latency",
    "generate": "text from a saved model, as it is drawn",
    "export": "a model as a folder that Hugging Face's transformers loads",
    "import": "the reverse: a folder of transformers as a model",
}
