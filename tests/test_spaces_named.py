"""The names of the spaces stand in several places; they must not part."""

from arch.spaces import SPACES
from jaxnas.presets import SEARCHES, SPACE_NAMES, default_space


def test_settings_know_every_space():
    assert tuple(SPACES) == SPACE_NAMES
    assert set(SEARCHES) <= set(SPACE_NAMES)
    assert {default_space(backend) for backend in ("cpu", "gpu")} == {"nano", "modern"}
