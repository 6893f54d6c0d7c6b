"""Training while weights are rounded, and Muon for stacked matrices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_cells import perturbed
from tasks import TINY, noise_task
from test_gates import SMALL

from jaxnas.compress import from_blocks, to_blocks
from jaxnas.compress.straight import straight_through, trained_codes
from jaxnas.pipeline.compress import trained_on
from jaxnas.training.loop import make_optimizer
from jaxnas.training.settings import TrainSettings

SETTINGS = TrainSettings(window=12, batch=4, learning_rate=1e-2)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_the_forward_pass_is_of_what_is_shipped(quantization):
    params = perturbed(SMALL)
    stored, codes = trained_codes(params, quantization)
    passed = straight_through(params, quantization)
    for one, other in zip(
        jax.tree.leaves(passed), jax.tree.leaves(stored), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    down = params["blocks"]["feedforward"]["down"]["kernel"].swapaxes(1, 2)
    own, scales = codes["blocks.feedforward.down.kernel"]
    assert own.shape == (2, 32, 3, 32)
    values = (own * scales.astype(np.float32)[..., None]).reshape(down.shape)
    kept = stored["blocks"]["feedforward"]["down"]["kernel"]
    np.testing.assert_allclose(values.swapaxes(1, 2), kept, atol=1e-6)
    nearest = from_blocks(to_blocks(jnp.asarray(down), quantization), 96)
    errors = [np.square(one - down).sum() for one in (values, np.asarray(nearest))]
    assert errors[0] <= errors[1]


def test_the_gradient_goes_straight_through():
    params = perturbed(SMALL)

    def total(params):
        passed = straight_through(params, "int4")
        return sum(jnp.sum(x) for x in jax.tree.leaves(passed))

    for slope in jax.tree.leaves(jax.grad(total)(params)):
        np.testing.assert_array_equal(slope, 1)


def test_training_sees_what_is_rounded():
    task = noise_task(SETTINGS)
    params = perturbed(TINY)
    plain, straight, again = (
        jax.tree.leaves(trained_on(TINY, task, params, 40, q))
        for q in (None, "int4", None)
    )
    assert all(map(np.array_equal, plain, again))
    assert not any(map(np.array_equal, plain, straight))


def test_muon_takes_each_layer_for_itself():
    """Its step is near orthogonal in every layer, heads joined; all else is Adam's."""
    params = perturbed(SMALL)
    draws = np.random.default_rng(1)
    grads = jax.tree.map(
        lambda leaf: 1e-3 * draws.standard_normal(leaf.shape, np.float32), params
    )
    settings = dataclasses.replace(SETTINGS, optimizer="muon", weight_decay=0.0)
    optimizer = make_optimizer(settings)
    steps, _ = optimizer.update(grads, optimizer.init(params), params)
    for name in ("query", "out"):
        kernel = np.asarray(steps["blocks"]["mixer"][name]["kernel"])
        for layer in kernel.reshape(2, 32, 32):
            sizes = np.sort(np.linalg.svd(layer, compute_uv=False))
            # Five steps of Newton and Schulz bring all but the smallest near to 1.
            assert 0.5 < sizes[3] < sizes[-1] < 1.4
    for one in (steps["embed"]["embedding"], steps["head"]["kernel"]):
        # Adam's first step is as long for each weight.
        sizes = np.abs(np.asarray(one))
        assert sizes.max() < 1.01 * np.median(sizes)
