"""`compress MODEL`: a trained model made smaller, and what that costs."""

from pathlib import Path

from jaxnas.commands.of_model import (
    BOUNDS,
    add_folder,
    add_of_run,
    claimed,
    found_model,
    settings_of,
    tokens_of,
)
from jaxnas.commands.options import Parser, add_tracking, check_flags, tracked_by
from jaxnas.config import Values
from jaxnas.errors import UsageError
from jaxnas.source_name import anchored_source
from jaxnas.storage.run_folder import RunFolder

STORED = {"f16": "fp16", "q8_0": "int8", "q4_0": "int4"}  # ggml's name of ours
ROUNDINGS = ("plain", "importance", "gptq", "qat")
RECOVER_STEPS = 1000  # where something has to be made up for

_ABOUT = """\
Makes a trained model smaller. Feed-forward channels, heads (a group of queries with its
keys and values) and whole layers are pruned in steps, those first that a calibration
says are worth the least; the model trains on between the steps; the weights are rounded
to the blocks that are shipped. What is saved is an ordinary model, which evaluate,
export, serve and train take. MODEL is a run's folder, or a folder with a saved model.
"""
_NAMES = (
    *("model", "data", "prune", "to", "rounding", "recover_steps", "recover_tokens"),
    *("max_size", "max_latency", "window", "batch", "learning_rate", "final_windows"),
    "seed",
)


def main(arguments: list[str]) -> None:
    """Compresses a model."""
    options = _parser().parse_args(arguments)
    with claimed(options, "compress", _NAMES, _values, _kept) as (folder, values):
        # Only now, for it takes seconds.
        from jaxnas.pipeline.compress import CompressPlan, compress
        from jaxnas.report.tables import plain_console

        others = {"to", "recover_tokens"}
        plan = CompressPlan(
            **{name: x for name, x in values.items() if name not in others},
            quantization=STORED[values["to"]],
        )
        try:
            with tracked_by(options, folder) as tracker:
                compress(folder, plan, plain_console(), tracker)
        except KeyboardInterrupt as error:
            error.add_note(f"go on with --resume {folder.path}")
            raise


def _kept(folder: RunFolder, kept: Values) -> Values:
    """The values that a folder keeps."""
    if kept["model"] is None or kept["to"] is None:
        raise UsageError(f"{folder.config} is not of a compression")
    if folder.summary.exists():
        raise UsageError(f"{folder.path} is done: its model is {folder.model}")
    return _checked(kept)


def _values(given: Values) -> Values:
    """All values of a plan: given, the run's, or by default."""
    if "model" not in given:
        raise UsageError("MODEL is missing: give a run's folder, or a model's")
    model, run = found_model(Path(given["model"]))
    values: Values = {
        **dict.fromkeys(_NAMES),
        "prune": 0.0,
        "to": "q4_0",
        "rounding": "gptq",
        "seed": 0,
        **settings_of(run),
        **given,
        "model": str(model),
    }
    values["data"] = anchored_source(values["data"])
    del values["eval_windows"]
    values = _checked(values)
    values["recover_steps"] = _steps(values)
    return values


def _checked(values: Values) -> Values:
    """The values, or what is wrong with one of them."""
    bounds: dict[str, Values] = BOUNDS | {
        "prune": {"kind": float, "least": 0, "below": 1},
        "to": {"kind": str, "among": tuple(STORED)},
        "rounding": {"kind": str, "among": ROUNDINGS},
        "recover_steps": {"kind": int, "least": 0},
        "recover_tokens": {"kind": int, "least": 1},
        "max_size": {"kind": float, "above": 0},
        "max_latency": {"kind": float, "above": 0},
    }
    del bounds["eval_windows"]
    open_ = ("recover_steps", "recover_tokens", "max_size", "max_latency")
    check_flags(values, bounds, open_=open_)
    if values["rounding"] == "qat" and values["to"] == "f16":
        raise UsageError("--rounding qat needs --to q8_0 or q4_0: f16 has no blocks")
    if values["rounding"] == "qat" and values["recover_steps"] == 0:
        raise UsageError("--rounding qat needs --recover-steps of 1 or more")
    return values


def _steps(values: Values) -> int:
    """Of recovery: as asked; by default some where more is done than rounding."""
    if values["recover_steps"] is not None:
        return values["recover_steps"]
    if values["recover_tokens"] is not None:
        return -(-values["recover_tokens"] // (values["window"] * values["batch"]))
    hurt = values["prune"] or values["max_size"] or values["max_latency"]
    return RECOVER_STEPS if hurt or values["rounding"] == "qat" else 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run compress",
        usage="python -m jaxnas.run compress MODEL [--prune SHARE] [--to NAME] "
        "[--out DIR | --resume DIR] [settings]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="a run's folder, or a model's")
    add_folder(parser, "compress", "this folder's compression")
    add("--prune", type=float, metavar="SHARE", help="of the model's bytes to go [0]")
    add("--max-size", type=float, metavar="MIB", help="of the result, at most [any]")
    add("--max-latency", type=float, metavar="MS", help="of a prompt, at most [any]")
    add("--to", metavar="NAME", help=f"{' | '.join(STORED)}: how it is stored [q4_0]")
    add(
        "--rounding",
        metavar="NAME",
        help="plain: to nearest; importance: scales by what the inputs weigh; gptq: "
        "errors made up for (arXiv:2210.17323); qat: trained while it is rounded, in "
        "the last quarter of the recovery [gptq]",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--recover-steps",
        type=int,
        metavar="N",
        help=f"of training, half of them after the last pruning [{RECOVER_STEPS} with "
        f"pruning or qat, else none]",
    )
    length.add_argument(
        "--recover-tokens", type=tokens_of, metavar="N", help="the same in tokens"
    )
    add("--learning-rate", type=float, metavar="X", help="the recovery's peak")
    add_of_run(parser)
    add_tracking(parser)
    return parser
