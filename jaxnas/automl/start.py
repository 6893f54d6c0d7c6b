"""A spec that starts from an open model: what it leaves out is about the model's."""

from collections.abc import Mapping
from typing import Any

from arch.cost import parameters
from arch.families import FAMILIES, USES
from arch.open_models import OPEN_MODELS, open_model
from jaxnas.automl.dimensions import FIELD_OF
from jaxnas.automl.spec_checks import SpecError, check


def with_start(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec, what it leaves out filled in from an open model.

    Half to twice its width and depth, its size of a head, its heads of keys and
    values, its vocabulary and activation; at most 1 % more parameters.
    """
    check("like", values["like"], str)
    model = open_model(values["like"])
    if model is None:
        known = ", ".join(one.name for one in OPEN_MODELS)
        raise SpecError(f"like={values['like']!r} must be one of {known}")
    config = model.config
    family = values.get("family", config.arch_type)
    hidden, layers = config.hidden_dim, config.num_layers
    dimensions: dict[str, Any] = {
        "hidden_size": {"min": max(64, hidden // 128 * 64), "max": 2 * hidden},
        "num_layers": {"min": max(1, layers // 2), "max": 2 * layers},
        "num_heads": {"min": 1, "max": 4 * config.num_heads},
        "head_size": [config.head_dim],
        "kv_heads": [config.key_value_heads],
    }
    used = {
        name: value
        for name, value in dimensions.items()
        if family not in FAMILIES or FIELD_OF.get(name, "num_heads") in USES[family]
    }
    shared = {
        "vocab_size": config.vocab_size,
        "activation": config.activation,
        "tie_embeddings": config.tie_embeddings,
    }
    most = {"params": {"max": 1.01 * parameters(config)}}
    return {
        "name": f"like {model.name}",
        **values,
        "family": family,
        "dimensions": used | values.get("dimensions", {}),
        "model": shared | values.get("model", {}),
        "constraints": most | values.get("constraints", {}),
    }
