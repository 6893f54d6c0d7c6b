"""An ONNX graph in onnxruntime against the model that it was made from."""

import jax
import numpy as np

from jaxnas.errors import RunFailed
from jaxnas.export.model_folder import LoadedModel
from jaxnas.export.reference import Agreed, reference_of

LIMIT = 1e-3  # of a difference from ours that is no error


def agreement_of(loaded: LoadedModel, content: bytes) -> Agreed:
    """Reads the prompt at once, then token after token from the cache; one thread.

    Raises:
      RunFailed: onnxruntime computes something else.
    """
    import onnxruntime

    reference = reference_of(loaded.config, loaded.params, loaded.tokenizer)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # By default it rounds what is multiplied with codes to 8 bits; 1 is float32.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"]
    )
    heads, size = loaded.config.key_value_heads, loaded.config.head_dim
    names = [x.name for x in session.get_inputs() if x.name.startswith("past_")]
    cache = {name: np.zeros((1, heads, 0, size), np.float32) for name in names}
    found, likeliest, begin = [], [], 0
    for tokens in (reference.prompt, *([token] for token in reference.new[:-1])):
        end = begin + len(tokens)
        feeds = {
            "input_ids": np.asarray([tokens], np.int64),
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(begin, end)[None],
        }
        logits, *states = session.run(None, feeds | cache)
        cache, begin = dict(zip(names, states, strict=True)), end
        likely = np.asarray(jax.nn.log_softmax(logits[0, -1].astype(np.float32)))
        likeliest.append(int(likely.argmax()))
        found.append(dict(enumerate(likely.tolist())))
    agreement = reference.compare(likeliest, found)
    if not agreement.difference <= LIMIT:
        raise RunFailed(
            f"onnxruntime computes another model, nothing is kept: log-probabilities "
            f"differ by {agreement.difference:.2g}"
        )
    return agreement
