"""Each form of each mixer: seconds, temporary bytes, and whether it is right."""

import functools
import gc

import jax
import jax.numpy as jnp
import numpy as np
from on_gpu.forms import FAMILIES, FULL, HALF, Form, Size, forms_for
from on_gpu.report import Report, at_once, clock, print_table, temporary_bytes

WIDE = [Size(8, 512, 8, tokens) for tokens in (128, 512, 2048)]
TINY = [Size(2, 32, 2, 48)]
DTYPES = (FULL, HALF)

# Of the largest value. In float32 with full products; as run, products of
# float32 may be TF32.
TOLERANCE = {FULL: 1e-3, HALF: 1e-1}


def run(report: Report):
    """At each length; checked at the middle one."""
    if report.small:  # one pass is both the race and the check
        with jax.default_matmul_precision("highest"):
            report.keep("forms", race_forms(*TINY, FULL, True, report))
        return
    sizes = WIDE
    rows: list[dict] = []
    for size in sizes:
        checked = size == sizes[len(sizes) // 2]
        for dtype in DTYPES:
            if report.has_time(f"T={size.tokens}, {dtype}", 5):
                rows += race_forms(size, dtype, checked, report)
                report.keep("forms", rows)
        if checked and report.has_time("check in float32"):
            report.keep("errors", check(size, report))


def race_forms(size: Size, dtype: str, checked: bool, report: Report) -> list[dict]:
    """Forward and backward of all forms, family by family."""
    forms = [form for form in forms_for(size) if form.only in (None, dtype)]
    programs = compile_forms(forms, size, dtype, report)
    rows = []
    for family in FAMILIES:
        mine = {key: one for key, one in programs.items() if key[0] == family}
        given = arguments(family, size, dtype)
        expected = reference_of(family, size, dtype) if checked else None
        calls = {
            key: functools.partial(program, *given) for key, program in mine.items()
        }
        ready, errors = {}, {}
        for key, call in calls.items():
            try:
                found = jax.block_until_ready(call())
            except Exception as error:  # any: a form that fails is a result
                report.fail(f"{key} {dtype} T={size.tokens}: {str(error)[:200]}")
                continue
            ready[key] = call
            if expected is not None:
                errors[key] = distance(found, expected)
                strict = dtype == HALF or report.small
                if strict and not errors[key] < TOLERANCE[dtype]:
                    report.fail(f"{key} {dtype}: off by {errors[key]:.1e}")
        seconds = clock(ready, seconds=0.02 if report.small else 0.25)
        rows += [
            {
                "family": family,
                "form": key[1],
                "tokens": size.tokens,
                "dtype": dtype,
                "ms": 1e3 * taken,
                "ratio": taken / min(seconds.values()),
                "temporary_mib": temporary_bytes(mine[key]) / 2**20,
                "error": errors.get(key),
            }
            for key, taken in seconds.items()
        ]
        del given, expected, calls, ready
        gc.collect()
    title = (
        f"Forward and backward, {dtype}, B {size.batch}, T {size.tokens}, "
        f"d {size.width}; ratio to the family's fastest"
    )
    columns = {"family": "", "form": "", "ms": ".3f", "ratio": ".2f"}
    print_table(title, rows, columns | {"temporary_mib": ".1f", "error": ".1e"})
    return rows


def compile_forms(forms: list[Form], size: Size, dtype: str, report: Report) -> dict:
    """(family, name) -> program of `both`. Traced in turn, for constants change."""
    lowered = {}
    for form in forms:
        given = jax.eval_shape(lambda form=form: arguments(form.family, size, dtype))
        try:
            with form.set_up():
                traced = jax.jit(functools.partial(both, form.read)).lower(*given)
        except Exception as error:  # any: a form that fails is a result
            report.fail(f"{form.family} {form.name} {dtype}: {str(error)[:200]}")
            continue
        lowered[form.family, form.name] = traced.compile
    return at_once(lowered, report)


def both(read, inputs, slope):
    """What is read, and the gradient of its product with `slope`."""
    y, pull = jax.vjp(read, *inputs)
    return y, pull(slope.astype(y.dtype))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def arguments(family: str, size: Size, dtype: str):
    """Inputs, and the slope of what they give: f32, of its shape."""
    for_inputs, for_slope = jax.random.split(jax.random.key(0))
    inputs = FAMILIES[family].draw(for_inputs, size, jnp.dtype(dtype))
    y = jax.eval_shape(FAMILIES[family].reference, *inputs)
    return inputs, jax.random.normal(for_slope, y.shape).astype(dtype)


@functools.cache
def reference_of(family: str, size: Size, dtype: str):
    """The plain function, in float32, of inputs that are of the dtype."""
    to_float32 = lambda x: x.astype(jnp.float32)
    given = jax.tree.map(to_float32, arguments(family, size, dtype))
    read = FAMILIES[family].reference
    with jax.default_matmul_precision("highest"):
        return jax.jit(functools.partial(both, read))(*given)


def distance(found, expected) -> float:
    """The greatest, of values and gradients, over the largest of each."""
    errors = []
    for one, other in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        errors.append(np.abs(one - other).max() / np.abs(other).max())
    return float(np.max(errors))  # NaN if any is


def check(size: Size, report: Report) -> list[dict]:
    """Each form in float32 with full products beside the plain function."""
    forms = [form for form in forms_for(size) if form.only in (None, FULL)]
    with jax.default_matmul_precision("highest"):
        programs = compile_forms(forms, size, FULL, report)
    rows = []
    for (family, name), program in programs.items():
        expected = reference_of(family, size, FULL)
        error = distance(program(*arguments(family, size, FULL)), expected)
        rows.append({"family": family, "form": name, "error": error})
        if not error < TOLERANCE[FULL]:
            report.fail(f"{family} {name}: off by {error:.1e} in float32")
    title = f"Error in float32, full products, T {size.tokens}, of the largest value"
    print_table(title, rows, {"family": "", "form": "", "error": ".1e"})
    return rows
