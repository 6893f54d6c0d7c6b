"""The training loop: the loss, its gradient and AdamW's step; many steps per call."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from arch import LanguageModel, Params
from arch.layout import input_axes, layout_of
from arch.traits import Traits
from jaxnas.compress.straight import straight_through
from jaxnas.runtime import compiler_options
from jaxnas.training.distillation import Lesson, divergence, gather_lesson
from jaxnas.training.lengths import PhaseLength, steps_of
from jaxnas.training.settings import TrainSettings

BASE_WIDTH = 64  # whose hidden matrices take the schedule's learning rate as it is
REST_FACTOR = 4.0  # of it, for embeddings, heads and vectors


class Schedule(NamedTuple):
    """Warm up, hold, decay to zero; data, so that lengths compile nothing."""

    peak: float | jax.Array  # learning rate, see `rate_factor`
    warmup: float | jax.Array  # steps
    decay: float | jax.Array  # steps, the last ones
    total: float | jax.Array  # steps

    @classmethod
    def over(
        cls, steps: int, settings: TrainSettings, first: int | None = None
    ) -> "Schedule":
        """The settings' schedule over a number of steps.

        Args:
          steps: of the whole training.
          settings: see `TrainSettings`.
          first: steps that the warm-up is a share of, if not all of them.
        """
        return cls(
            peak=settings.learning_rate,
            warmup=max(1.0, settings.warmup_share * (first or steps)),
            decay=max(1.0, settings.decay_share * steps),
            total=float(steps),
        )

    def rate(self, step: jax.Array | np.int32) -> jax.Array:
        """i32[] -> f32[], the learning rate of a step, counted from 0."""
        up = (step + 1) / self.warmup
        down = (self.total - step) / self.decay
        return self.peak * jnp.clip(jnp.minimum(up, down), 0, 1)


class TrainState(NamedTuple):
    """Everything that goes on from one call to the next."""

    params: Params
    moments: optax.OptState
    step: jax.Array | np.int32  # i32[], steps done


Batch: TypeAlias = jax.Array | Lesson  # of windows
Trained: TypeAlias = tuple[TrainState, jax.Array]  # and the losses


class TrainingFunctions(NamedTuple):
    """A model's compiled training.

    init: (params) -> TrainState.
    run: (state, tokens, starts, schedule, key, stop) -> (state, losses).
      tokens: i32[N], resident on the device; or a Lesson, with a teacher.
      starts: i32[S, B], where each step's windows begin.
      key: PRNG key of the dropout; the same for all calls of one training.
      stop: i32[], steps to do, at most S.
      losses: f32[S], nats per token, zero from `stop` on.
      The state is donated.
    """

    init: Callable
    run: Callable


def make_trainer(
    model: LanguageModel,
    settings: TrainSettings,
    everywhere: jax.sharding.Sharding | None = None,
) -> TrainingFunctions:
    """A model's training, compiled when it is called.

    Args:
      model: the module.
      settings: see `TrainSettings`.
      everywhere: where the state and the losses are left, if not as XLA likes: on all
        of the devices that share a batch.
    """
    init, run = training_functions(model, settings)
    options = compiler_options(jax.default_backend())
    compiled = jax.jit(
        run, donate_argnums=0, out_shardings=everywhere, compiler_options=options
    )
    return TrainingFunctions(jax.jit(init), compiled)


def make_optimizer(settings: TrainSettings) -> optax.GradientTransformation:
    """The settings' optimizer but for its step size.

    AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); or Muon (Jordan et al. 2024,
    kellerjordan.github.io/posts/muon) for hidden matrices, and AdamW for the rest.
    """
    scale = optax.scale_by_adam(b1=0.9, b2=settings.beta2, eps=1e-8)
    if settings.optimizer == "muon":
        scale = optax.contrib.muon(
            -1.0,  # the step is taken elsewhere, and its sign
            adam_b2=settings.beta2,
            muon_weight_dimension_numbers=_hidden_axes,
        )
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        scale,
        optax.add_decayed_weights(settings.weight_decay, _is_matrix),
    )


def _hidden_axes(params: Params) -> Params:
    """Which axes of each stacked hidden matrix Muon takes for inputs and outputs."""

    def of(path: tuple, leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        if not _is_hidden(path):
            return None
        inputs = input_axes(layout_of(path))
        outputs = tuple(axis for axis in range(1, leaf.ndim) if axis not in inputs)
        return optax.contrib.MuonDimensionNumbers(inputs, outputs)

    return jax.tree_util.tree_map_with_path(of, params)


def training_functions(
    model: LanguageModel, settings: TrainSettings
) -> TrainingFunctions:
    """The pure functions of `make_trainer`.

    `run` takes the traits last, of a model that is padded into this one's shape.
    """
    optimizer = make_optimizer(settings)

    def init(params: Params) -> TrainState:
        return TrainState(params, optimizer.init(params), jnp.int32(0))

    def loss_of(
        params: Params, batch: Batch, key: jax.Array, traits: Traits | None
    ) -> jax.Array:
        windows = batch.tokens if isinstance(batch, Lesson) else batch
        if settings.rounding is not None:
            params = straight_through(params, settings.rounding)
        logits = logits_of(model, params, windows[:, :-1], key, traits)
        losses = next_token_losses(logits, windows[:, 1:])
        if isinstance(batch, Lesson):
            share = settings.teaching
            losses = (1 - share) * losses + share * divergence(logits, batch)
        return losses.mean()

    def differentiate(
        params: Params, batch: Batch, key: jax.Array, traits: Traits | None
    ) -> tuple[jax.Array, Params]:
        """The loss and its gradient, part by part where that saves memory."""
        whole = jax.value_and_grad(loss_of)
        parts = settings.accumulate
        if parts == 1:
            return whole(params, batch, key, traits)

        def add(sums: tuple, part: tuple) -> tuple[tuple, None]:
            found = whole(params, part[0], part[1], traits)
            return jax.tree.map(jnp.add, sums, found), None

        begin = (jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
        # Each part has rows of every device that shares the batch.
        part = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
        split = jax.tree.map(part, batch)
        sums, _ = jax.lax.scan(add, begin, (split, jax.random.split(key, parts)))
        return jax.tree.map(lambda total: total / parts, sums)

    def step(
        state: TrainState,
        tokens: Batch,
        starts: jax.Array,
        schedule: Schedule,
        key: jax.Array,
        traits: Traits | None,
    ) -> tuple[TrainState, jax.Array]:
        batch: Batch
        if isinstance(tokens, Lesson):
            batch = gather_lesson(tokens, starts, settings.window)
        else:
            batch = gather_windows(tokens, starts, settings.window)
        drop = jax.random.fold_in(key, state.step)
        loss, grads = differentiate(state.params, batch, drop, traits)
        updates, moments = optimizer.update(grads, state.moments, state.params)
        width = model.config.hidden_dim if traits is None else traits.width
        rate = schedule.rate(state.step)

        def moved(path: tuple, param: jax.Array, update: jax.Array) -> jax.Array:
            factor = rate_factor(path, width, settings.optimizer)
            return param - rate * factor * update

        params = jax.tree_util.tree_map_with_path(moved, state.params, updates)
        return TrainState(params, moments, state.step + 1), loss

    def run(
        state: TrainState,
        tokens: Batch,
        starts: jax.Array,
        schedule: Schedule,
        key: jax.Array,
        stop: jax.Array,
        traits: Traits | None = None,
    ) -> Trained:
        def body(i: jax.Array, carry: Trained) -> Trained:
            state, losses = carry
            state, loss = step(state, tokens, starts[i], schedule, key, traits)
            return state, losses.at[i].set(loss)

        losses = jnp.zeros(len(starts), jnp.float32)
        return jax.lax.fori_loop(0, stop, body, (state, losses))

    return TrainingFunctions(init, run)


def fresh_state(params: Params, settings: TrainSettings) -> TrainState:
    """An optimizer that has seen nothing, made on the host: nothing compiles."""
    moments = jax.eval_shape(make_optimizer(settings).init, params)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), moments)
    return TrainState(params, zeros, np.int32(0))


def logits_of(
    model: LanguageModel,
    params: Params,
    tokens: jax.Array,
    dropout_key: jax.Array | None = None,
    traits: Traits | None = None,
) -> jax.Array:
    """i32[B, T] -> f32[B, T, V]."""
    return jnp.asarray(model.apply({"params": params}, tokens, traits, dropout_key))


def next_token_losses(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """f32[..., V], i32[...] -> f32[...], nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


def gather_windows(tokens: jax.Array, starts: jax.Array, length: int) -> jax.Array:
    """i[N], i32[B] -> i32[B, length + 1]: each window and the token after it."""
    places = starts[:, None] + jnp.arange(length + 1)[None]
    return tokens[places].astype(jnp.int32)


def batch_starts(
    seed: int,
    tokens: int,
    settings: TrainSettings,
    phase: PhaseLength,
    purpose: str = "search",
) -> np.ndarray:
    """Where the windows of each training step begin: i32[steps, batch].

    The phase's samples are drawn once, each epoch takes them in a new order, and
    what is left of the last batch is dropped. The same for every candidate of
    a run, so that candidates differ by their architecture alone; another
    purpose draws other windows.
    """
    rng = np.random.default_rng([seed, phase.samples, *purpose.encode()])
    drawn = rng.integers(0, tokens - settings.window, phase.samples, dtype=np.int32)
    order = np.concatenate([rng.permutation(drawn) for _ in range(phase.epochs)])
    return np.resize(order, (steps_of(phase, settings), settings.batch))


def rate_factor(
    path: tuple, width: int | jax.Array, optimizer: str = "adamw"
) -> float | jax.Array:
    """What a tensor's learning rate is of the schedule's.

    A hidden matrix takes less the wider the model, so that what it adds to a
    channel stays the same (Yang et al. 2022, arXiv:2203.03466); what has a row for
    each token or position and all vectors take the same at any width, and so does
    what Muon makes orthogonal. The numbers were fitted, see experiments/recipe.

    Args:
      path: `jax.tree_util` key path below "params".
      width: of the residual stream.
      optimizer: of OPTIMIZERS.
    """
    if _is_hidden(path) and optimizer != "muon":
        return BASE_WIDTH / width
    return REST_FACTOR


_TABLES = ("embed", "positions", "head")  # a row for each token or position


def _is_hidden(path: tuple) -> bool:
    layout = layout_of(path)
    return layout.matrix and layout.module not in _TABLES


def _is_matrix(params: Params) -> Params:
    """Weight decay is for matrices; scales, biases, decays are not pulled to zero."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: layout_of(path).matrix, params
    )
