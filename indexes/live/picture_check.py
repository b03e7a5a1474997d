"""Check of stored pictures: each picture is compared with its digest when it is first read.

Reading all pictures would make opening an index slow, and one damaged picture must not keep the other items from being
served. A picture that matched its digest is not read again until its file changes: its inode, size or time stamps.
"""

from pathlib import Path
from threading import Lock

from indexes.storage.generation import Generation
from model.errors import ArtifactError, DamagedPictureError
from model.plain_file import plain_status

MAX_REMEMBERED = 100_000
"""Maximum number of pictures whose check is remembered; all others are compared whenever they are read."""

_State = tuple[int, int, int, int]


class PictureCheck:
    """Checked pictures of an index, and the pictures known to be damaged; safe to use from many threads."""

    def __init__(self) -> None:
        self._whole: dict[tuple[str, str], _State] = {}
        self._damaged: dict[tuple[str, str], str] = {}
        self._changing = Lock()

    @property
    def damaged(self) -> list[str]:
        """Files of the pictures known to be damaged, relative to the index folder."""
        with self._changing:
            return sorted(self._damaged.values())

    def switch_to(self, generation: Generation) -> None:
        """Keep what is known about the pictures that `generation` contains, and add what opening it has found."""
        files = generation.manifest.files
        with self._changing:
            self._damaged = {
                (name, digest): _file(generation, name)
                for name, digest in self._damaged
                if name in files and files[name].sha256 == digest
            }
            for name in generation.damaged_pictures:
                self._damaged[name, files[name].sha256] = _file(generation, name)

    def file(self, generation: Generation, name: str) -> Path:
        """Compare the picture `name` of a generation with its digest and return its path.

        Raises:
            DamagedPictureError: the picture is missing, unreadable, or not the one that was written.
        """
        path, record = generation.path / name, generation.manifest.files.get(name)
        if record is None:
            raise self.report(_file(generation, name), name, "", "the manifest does not list it")
        try:
            found = plain_status(path, generation.path)
            state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if self._whole.get((name, record.sha256)) != state:
                record.check(path, generation.path)
        except (ArtifactError, FileNotFoundError) as error:
            raise self.report(_file(generation, name), name, record.sha256, error) from None
        with self._changing:
            self._damaged.pop((name, record.sha256), None)
            if len(self._whole) < MAX_REMEMBERED or (name, record.sha256) in self._whole:
                self._whole[name, record.sha256] = state
        return path

    def report(self, file: str, name: str, digest: str, reason: object) -> DamagedPictureError:
        """Record that a picture is damaged, and return the error. `file` is its place, for people."""
        with self._changing:
            self._damaged[name, digest] = file
            self._whole.pop((name, digest), None)
        return DamagedPictureError(file, reason)


def _file(generation: Generation, name: str) -> str:
    return f"{generation.path.name}/{name}"
