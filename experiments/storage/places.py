"""Where a store keeps its files: a folder of a disk; `experiments.storage.bucket` has object storage."""

import errno
import os
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A file of a place: its name with slashes, its size in bytes, and when it was written (seconds)."""

    name: str
    bytes: int
    written: float


class Place(ABC):
    """Named bytes. What `put` and `create` have returned from is on the disk, or on the server.

    Attributes:
        address: What a store here is opened by.
    """

    address: str

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Write a file that nobody else writes."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a file at once and whole, if there is none of this name; say whether there was none."""

    @abstractmethod
    def get(self, name: str) -> bytes:
        """A file's content; FileNotFoundError if there is none."""

    @abstractmethod
    def entries(self, folder: str = "") -> Iterator[Entry]:
        """All files below a folder."""

    @abstractmethod
    def listing(self, folder: str = "") -> tuple[list[str], list[str]]:
        """The names of the folders and of the files that lie directly in a folder, in order."""

    @abstractmethod
    def written(self, name: str) -> float:
        """When a file, or something in a folder, was last written (seconds since 1970)."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def drop(self, folder: str) -> None:
        """Remove a folder and all that is in it."""

    def get_all(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Many files; those that have vanished are left out."""
        for name in names:
            try:
                yield name, self.get(name)
            except FileNotFoundError:
                continue

    def path(self, name: str) -> Path | None:
        """Where a file lies on this machine, if it does."""
        return None


class Disk(Place):
    """A folder, on any file system with hard links; several processes and machines may share it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.address = str(root)

    def put(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def create(self, name: str, data: bytes) -> bool:
        path = self.root / name
        draft = f"{name}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            self.put(draft, data)
            first = _link(self.root / draft, path)
        finally:
            self.delete(draft)
        _flush(path.parent)
        return first

    def get(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def entries(self, folder: str = "") -> Iterator[Entry]:
        base = self.root / folder if folder else self.root
        for parent, folders, files in os.walk(base):
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            prefix = Path(parent).relative_to(self.root).as_posix()
            for file in sorted(files):
                try:
                    status = os.stat(os.path.join(parent, file))
                except FileNotFoundError:  # another process has removed it meanwhile
                    continue
                yield Entry(file if prefix == "." else f"{prefix}/{file}", status.st_size, status.st_mtime)

    def listing(self, folder: str = "") -> tuple[list[str], list[str]]:
        try:
            with os.scandir(self.root / folder) as found:
                entries = [(entry.name, entry.is_dir()) for entry in found if not entry.name.startswith(".")]
        except FileNotFoundError:
            entries = []
        folders, files = ([name for name, is_folder in entries if is_folder is side] for side in (True, False))
        return sorted(folders), sorted(files)

    def written(self, name: str) -> float:
        paths = [self.root / name, *(self.root / entry.name for entry in self.entries(name))]
        times = [path.stat().st_mtime for path in paths if path.exists()]
        return max(times, default=time.time())  # what has vanished is nobody's orphan

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def drop(self, folder: str) -> None:
        shutil.rmtree(self.root / folder, ignore_errors=True)

    def path(self, name: str) -> Path | None:
        return self.root / name


def _link(draft: Path, path: Path) -> bool:
    """Give a finished draft its name, which fails if the name is taken: atomic on a local disk and over NFS."""
    try:
        os.link(draft, path)
    except FileExistsError:
        # Over NFS the answer to a link that was made can be lost: then the draft has two names.
        return os.stat(draft).st_nlink == 2
    return True


def _flush(folder: Path) -> None:
    """Make the names in a folder durable, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
