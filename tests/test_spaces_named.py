"""The names of the spaces stand in two places; they must not part."""

from arch.spaces import SPACES
from jaxnas.presets import SPACE_NAMES


def test_settings_know_every_space():
    assert tuple(SPACES) == SPACE_NAMES
