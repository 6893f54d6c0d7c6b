"""What the fields of configs may be."""

MOST_COUNT = 2**40  # of anything that a model has, far beyond what fits in memory
MOST_REAL = 1e300


def is_count(value: object) -> bool:
    """Whether it is an int from 1 to `MOST_COUNT`."""
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and 1 <= value <= MOST_COUNT
    )


def is_real(value: object) -> bool:
    """Whether it is a finite number."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < MOST_REAL  # an int may be beyond every float
    )
