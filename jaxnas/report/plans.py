"""A plan as a table."""

from rich.table import Table

from jaxnas.population.plan import Bucket, Plan
from jaxnas.report.tables import add_numbers, plain_table


def plan_table(plan: Plan) -> Table:
    """Which candidates share a program, and what is predicted."""
    new = sum(bucket.compile_seconds > 0 for bucket in plan.buckets)
    table = plain_table(
        f"plan: {len(plan.buckets)} buckets, {new} programs to compile and "
        f"{len(plan.prepared)} for later; {plan.seconds:.1f} s predicted",
        "program",
    )
    add_numbers(table, "members", "device", "padding", "compile s", "train s")
    for bucket in plan.buckets:
        table.add_row(
            _program(bucket),
            str(len(bucket.members)),
            str(bucket.device),
            f"{bucket.waste:.0%}",
            f"{bucket.compile_seconds:.1f}" if bucket.compile_seconds else "has it",
            f"{bucket.seconds:.1f}",
        )
    return table


def _program(bucket: Bucket) -> str:
    program, shape = bucket.program, bucket.program.shape
    heads = "/".join(dict.fromkeys(str(own.query) for own in shape.heads))
    lanes = f" x {program.lanes} lanes" if program.lanes > 1 else ""
    return (
        f"{shape.arch_type} L{shape.num_layers} H{shape.hidden_dim} "
        f"heads {heads} inner {shape.inner_channels} {program.form}{lanes}"
    )
