"""llama.cpp in a process of its own: reads a job from stdin, answers on stdout.

It is run as a file and imports nothing of ours, so it starts at once; and a model
that llama.cpp aborts at ends this process alone. llama.cpp is the wheel
`xllamacpp`, whose server is asked on loopback, as an editor would.
"""

import http.client
import json
import os
import sys
from typing import Any


def answer(job: dict) -> dict:
    """What llama.cpp makes of a file.

    Args:
      job: "path" of the file; "texts" to split; "tokens", a sequence of ids, and
        "begin", how many of them are read before the first answer; "top", how many
        of the likeliest tokens to tell of; "plain", a token that is a character;
        "context", tokens at most.

    Returns:
      "ids" of each text; "next", for each prefix of the tokens from "begin" on, the
      likeliest next tokens as pairs of id and natural logarithm of probability.
    """
    server = start(job["path"], job["context"])
    ids = [
        ask(server, "/tokenize", {"content": text, "parse_special": False})["tokens"]
        for text in job["texts"]
    ]
    following = []
    for length in range(job["begin"], len(job["tokens"]) + 1):
        found = ask(
            server,
            "/completion",
            {
                "prompt": job["tokens"][:length],
                "n_predict": 1,
                "temperature": 0.0,
                "n_probs": job["top"],
                # A token that is no whole character, or the end, has no answer:
                # another one is drawn. Probabilities are of before that.
                "logit_bias": [[job["plain"], 1e9]],
                "cache_prompt": True,
            },
        )
        top = found["completion_probabilities"][0]["top_logprobs"]
        following.append([(token["id"], token["logprob"]) for token in top])
    return {"ids": ids, "next": following}


def start(path: str, context: int) -> Any:
    """A server on loopback, one thread, everything that can be in float32."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = context
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.warmup = False
    params.fit_params = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    disabled = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.flash_attn_type = disabled
    return xllamacpp.Server(params)


def ask(server: Any, path: str, content: dict) -> dict:
    """The server's answer to a request."""
    address = server.listening_address.split("://")[-1]
    connection = http.client.HTTPConnection(address, timeout=100)
    connection.request("POST", path, json.dumps(content))
    response = connection.getresponse()
    said = json.loads(response.read())
    if response.status != 200:
        raise RuntimeError(f"{path}: {said}")
    return said


if __name__ == "__main__":
    # What the library prints belongs to stderr.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(answer(json.load(sys.stdin)), out)
    out.flush()
    os._exit(0)  # the server's threads are not waited for
