"""What is asked for, read from the JSON of OpenAI's and llama.cpp's interfaces.

`/v1/completions`: platform.openai.com/docs/api-reference/completions; `/infill`:
github.com/ggml-org/llama.cpp, tools/server/README.md. Fields that are unknown here
are let pass, as both do; those that ask for what is not done are refused.
"""

import dataclasses
import json
import secrets
from collections.abc import Mapping
from typing import Any

from arch.decoding.sampling import Sampling
from jaxnas.checks import fault
from jaxnas.storage.jsonl import Json

MAX_TOKENS = 64  # of a completion, where nothing is said
MOST_STOPS = 16
STOP_LENGTH = 500  # characters of a text that ends a completion
_TEXT = 2**20  # characters of a prompt

# What is not done here, and the values that ask for nothing.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "logit_bias": ({}, [], False),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repeat_penalty": (1,),
}


class BadRequest(ValueError):
    """A request that cannot be used: one line, status 400."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One completion.

    Attributes:
      before: the text to go on with.
      after: what stands behind the cursor, empty if nothing does.
      max_new: tokens, at most; 0 draws none.
      sampling: see `Sampling`.
      stops: texts before which it ends.
      seed: of what is drawn.
      stream: whether the text is sent as it is drawn.
      seconds: after which it ends, None for the server's own limit.
    """

    before: str
    after: str = ""
    max_new: int = MAX_TOKENS
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    seed: int = 0
    stream: bool = False
    plain: bool = False  # whether special tokens are text in any case
    seconds: float | None = None


def _same(value: object, neutral: object) -> bool:
    """Equal, and a truth value only where that is one: 0 is another thing."""
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def read_json(body: bytes) -> Json:
    """The object of a request's body.

    Raises:
      BadRequest: it is none.
    """
    try:
        found = json.loads(body.decode())
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    except (ValueError, RecursionError):
        raise BadRequest("the body is no JSON") from None
    if not isinstance(found, dict):
        raise BadRequest("the body is no JSON object")
    return found


def completion_request(values: Mapping[str, Any]) -> Request:
    """A request of `/v1/completions`; its temperature is 1 where it says none.

    Its `suffix` is what stands behind the cursor.

    Raises:
      BadRequest: a field that cannot be used: which, and what is allowed.
    """
    prompt = values.get("prompt", "")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    after = values.get("suffix")
    after = "" if after is None else _text("suffix", after)
    return _request(values, _text("prompt", prompt), after, "max_tokens", 1.0)


def infill_request(values: Mapping[str, Any]) -> Request:
    """A request of `/infill`; it takes the likeliest tokens where it says nothing.

    `input_extra`, pieces of other files, is let pass and not read: editors send it
    with all that they ask.

    Raises:
      BadRequest: as `completion_request`.
    """
    before = _text("input_prefix", values.get("input_prefix", ""))
    before += _text("prompt", values.get("prompt", ""))
    after = _text("input_suffix", values.get("input_suffix", ""))
    found = _request(values, before, after, "n_predict", 0.0)
    found = dataclasses.replace(found, plain=True)
    limit = values.get("t_max_predict_ms")
    if limit is None or limit == 0:
        return found
    seconds = _number(values, "t_max_predict_ms", 0.0, above=0) / 1000
    return dataclasses.replace(found, seconds=seconds)


def _request(
    values: Mapping[str, Any], before: str, after: str, most: str, temperature: float
) -> Request:
    for name, neutral in _NEUTRAL.items():
        value = values.get(name)
        if value is not None and not any(_same(value, one) for one in neutral):
            only = json.dumps(neutral[0])
            raise BadRequest(f"{name}={value!r:.40} must be {only}")
    stops = values.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise BadRequest(f"stop must be a text or at most {MOST_STOPS} of them")
    stream = values.get("stream") or False
    if not isinstance(stream, bool):
        raise BadRequest(f"stream={stream!r:.40} must be true or false")
    try:
        sampling = Sampling(
            temperature=_number(values, "temperature", temperature, least=0, most=100),
            top_k=max(0, _whole(values, "top_k", 0, least=-1, most=2**31)),
            top_p=_number(values, "top_p", 1.0, above=0, most=1),
            min_p=_number(values, "min_p", 0.0, least=0, most=1),
        )
    except ValueError as error:
        raise BadRequest(str(error)) from None
    return Request(
        before=before,
        after=after,
        max_new=_whole(values, most, MAX_TOKENS, least=0, most=2**20),
        sampling=sampling,
        stops=tuple(_text("stop", one, STOP_LENGTH) for one in stops if one != ""),
        seed=_seed(values),
        stream=stream,
    )


def _seed(values: Mapping[str, Any]) -> int:
    """The one that is given; without one, or with -1, each text is another."""
    given = _whole(values, "seed", -1, least=-1, most=2**32 - 1)
    return secrets.randbits(32) if given == -1 else given


def _text(name: str, value: object, most: int = _TEXT) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a text")
    if len(value) > most:
        raise BadRequest(f"{name} must have at most {most} characters")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        raise BadRequest(f"{name} is no Unicode text") from None
    return value


def _number(
    values: Mapping[str, Any], name: str, default: float, **bounds: float
) -> float:
    return float(_checked(values, name, default, float, bounds))


def _whole(values: Mapping[str, Any], name: str, default: int, **bounds: int) -> int:
    return int(_checked(values, name, default, int, bounds))


def _checked(
    values: Mapping[str, Any], name: str, default: Any, kind: type, bounds: Mapping
) -> Any:
    value = values.get(name)
    value = default if value is None else value
    try:
        wrong = fault(value, kind, **bounds)
    except OverflowError:  # an int beyond any float
        wrong = f"must be at most {bounds.get('most')}"
    if wrong is not None:
        raise BadRequest(f"{name}={value!r:.40} {wrong}")
    return value
