"""What upper layers hide of the disk directory in the layers beneath (OCI image-spec, layer.md, "Whiteouts")."""

from __future__ import annotations

from imagekit.base.errors import ImageError

DISK_DIRECTORY = "disk"

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MOST_NAMES = 100_000

Parts = tuple[str, ...]


class Whiteouts:
    """Collects what the layers seen so far hide; a layer hides nothing of itself, so its own count from ``end_layer`` on."""

    def __init__(self) -> None:
        self._hidden: set[Parts] = set()  # these and everything beneath them
        self._opaque: set[Parts] = set()  # everything beneath them
        self._directories: set[Parts] = set()  # a file of that name
        self._next_hidden: set[Parts] = set()
        self._next_opaque: set[Parts] = set()
        self._next_directories: set[Parts] = set()

    @property
    def hides_everything(self) -> bool:
        """Whether no layer beneath can have a disk that shows."""
        return (DISK_DIRECTORY,) in self._hidden or (DISK_DIRECTORY,) in self._opaque or () in self._opaque

    def note(self, parts: Parts, *, is_directory: bool) -> bool:
        """Take an entry of the current layer; return whether it is a whiteout or hidden, so not part of the image."""
        if parts and parts[-1] == _OPAQUE:
            self._add(self._next_opaque, parts[:-1])
            return True
        if parts and parts[-1].startswith(_WHITEOUT):
            self._add(self._next_hidden, (*parts[:-1], parts[-1].removeprefix(_WHITEOUT)))
            return True
        if self._hides(parts, is_directory=is_directory):
            if not is_directory:  # it had taken the place of a directory, before one above took its own
                self._add(self._next_opaque, parts)
            return True
        # A file takes the place of a whole directory beneath, a directory only that of a file: the others are merged.
        self._add(self._next_directories if is_directory else self._next_hidden, parts)
        for length in range(1, len(parts)):  # an archive need not name the directories that its files are in
            self._add(self._next_directories, parts[:length])
        return False

    def end_layer(self) -> None:
        """Let what the current layer said hold for the layers beneath."""
        self._hidden |= self._next_hidden
        self._opaque |= self._next_opaque
        self._directories |= self._next_directories
        self._next_hidden, self._next_opaque, self._next_directories = set(), set(), set()

    def _hides(self, parts: Parts, *, is_directory: bool) -> bool:
        if not is_directory and parts in self._directories:
            return True
        if () in self._opaque or parts in self._hidden:
            return True
        above = [parts[:length] for length in range(1, len(parts))]
        return any(path in self._hidden or path in self._opaque for path in above)

    def _add(self, names: set[Parts], parts: Parts) -> None:
        """Keep only what concerns the disk directory; a layer may have a hundred thousand other names."""
        if (parts and parts[0] != DISK_DIRECTORY) or parts in names:
            return
        if len(names) >= _MOST_NAMES:
            raise ImageError(f"the image has more than {_MOST_NAMES} names under {DISK_DIRECTORY}/", reason="UnsafeImage")
        names.add(parts)
