"""`serve MODEL`: completions for editors, over HTTP."""

import contextlib
import ipaddress
import sys
from pathlib import Path

from jaxnas.commands.options import MANY, Parser, whole
from jaxnas.errors import UsageError
from jaxnas.serving.engines import ENGINES
from jaxnas.storage.run_folder import model_in

PORT = 8012  # the one that llama.vscode asks by default

_ABOUT = """\
Completes code for an editor: MODEL, a folder with a saved model or a run's, answers
at /v1/completions (as OpenAI's interface, with streaming), /infill (as llama.cpp's)
and /health, until it is interrupted. Only this machine is answered by default.
"""
_EDITORS = """\
serving     {model} at {url}, prompts of up to {context} tokens, {engine}
try it      curl {url}/v1/completions -d '{{"prompt": "def main(", "max_tokens": 32}}'
VS Code     llama.vscode: "llama-vscode.endpoint": "{url}"
Continue    provider: openai, apiBase: {url}/v1, model: {model}, roles: [autocomplete]
It compiles now: for some seconds answers are slow, or shorter than they were asked for.
"""


def main(arguments: list[str]) -> None:
    """Serves until interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 <= options.port < 2**16:
        raise UsageError(f"--port {options.port} must be from 0 to 65535")
    if not 1 <= options.context <= 2**16:
        raise UsageError(f"--context {options.context} must be from 1 to 65536")
    if not 0 < options.timeout <= 3600:
        raise UsageError(f"--timeout {options.timeout} must be above 0, at most 3600")
    if options.token is None and not _is_loopback(options.host):
        raise UsageError(
            f"--host {options.host} answers other machines: give a --token that "
            f"they have to know"
        )
    # Only now, for it takes seconds.
    from jaxnas.runtime import set_up
    from jaxnas.serving.completer import Completer
    from jaxnas.serving.server import Bounds, Server

    set_up()
    folder = model_in(options.model)
    completer = Completer(
        folder, options.context, options.engine, options.special_tokens
    )
    bounds = Bounds(options.timeout, options.token)
    try:
        server = Server((options.host, options.port), folder, completer, bounds)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        reason = error.strerror or error
        raise UsageError(f"cannot serve at {where}: {reason}") from None
    host, port = server.server_address[:2]
    name = f"[{host!s}]" if ":" in str(host) else str(host)
    said = _EDITORS.format(
        model=server.model,
        url=f"http://{name}:{port}",
        context=completer.context,
        engine=completer.engine,
    )
    print(said, end="", flush=True)
    server.begin()
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    print("\njaxnas: stopped serving", file=sys.stderr)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run serve",
        usage="python -m jaxnas.run serve MODEL [--port N] [settings]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="a run's folder, or a model's")
    add("--port", type=whole(), default=PORT, metavar="N", help=f"0 takes any [{PORT}]")
    add("--host", default="127.0.0.1", metavar="NAME", help="[127.0.0.1]")
    add("--token", metavar="TEXT", help="that requests must carry; a must off loopback")
    add(
        "--context",
        type=whole(MANY),
        default=512,
        metavar="N",
        help="tokens of a prompt, at most, both sides of a cursor together; the model "
        "may allow fewer [512]",
    )
    add(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="int8 multiplies 8-bit integers by onnxruntime, softmax attention alone, "
        "in half of the time; auto takes it where it can [auto]",
    )
    add(
        "--special-tokens",
        action="store_true",
        help="special tokens that a prompt spells out, such as those of a chat, are "
        "those, and no text",
    )
    add(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="of a completion, and of waiting for one's turn [30]",
    )
    return parser
