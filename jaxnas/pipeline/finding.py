"""What is said of a part of a run's folder."""

from typing import NamedTuple


class Finding(NamedTuple):
    """A part of the folder, as it was found.

    Attributes:
      name: of the file or folder.
      said: what it is, or what is wrong with it.
      lost: what is lost with it; None if nothing is wrong.
    """

    name: str
    said: str
    lost: str | None = None
