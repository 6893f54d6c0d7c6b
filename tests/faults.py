"""Makes a change to the disk fail, or be the last of a process that is killed there."""

import errno
import os

from jaxnas.storage import disk

CHANGES = (
    "open_file",
    "write",
    "sync",
    "truncate",
    "rename",
    "remove",
    "remove_folder",
    "make_folder",
    "save",
)
# A full disk goes on being full, a read-only one read-only; an error comes once.
WAYS = {"full": errno.ENOSPC, "error": errno.EIO, "readonly": errno.EROFS, "kill": None}
ADDING = ("open_file", "write", "sync", "make_folder", "save")


class Killed(BaseException):
    """The process is dead: nothing after this changes the disk."""


class Disk:
    """Counts the changes; the one of that number, from 1 on, fails in that way."""

    def __init__(self, patch, number=0, way="error"):
        self.names, self._number, self._way = [], number, way
        for name in CHANGES:
            patch.setattr(disk, name, self._watched(name, getattr(disk, name)))

    def _watched(self, name, change):
        def call(*arguments):
            self.names.append(name)
            now = len(self.names)
            if self._number and now >= self._number and self._fails(name, now):
                if name == "write" and now == self._number:  # as much as there is room
                    file, content = arguments
                    change(file, content[: len(content) // 2])
                if self._way == "kill":
                    raise Killed
                code = WAYS[self._way]
                raise OSError(code, os.strerror(code))
            return change(*arguments)

        return call

    def _fails(self, name, now):
        if self._way == "error":
            return now == self._number
        return self._way != "full" or name in ADDING
