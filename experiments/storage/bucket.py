"""Object storage as a store's place: S3, Google Cloud, Azure, or anything else that obstore opens."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from experiments.storage.places import Entry, Place

_AT_ONCE = 16  # requests that wait for the server together


class Bucket(Place):
    """A prefix of a bucket. Keys and addresses come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT, …)."""

    def __init__(self, objects: Any, address: str) -> None:
        self.objects = objects
        self.address = address

    def __reduce__(self) -> tuple[Any, ...]:
        return open_bucket, (self.address,)  # another process makes a connection of its own

    def put(self, name: str, data: bytes) -> None:
        self.objects.put(name, data)

    def create(self, name: str, data: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError

        try:
            self.objects.put(name, data, mode="create")  # a conditional request: the server decides who was first
        except AlreadyExistsError:
            return False
        return True

    def get(self, name: str) -> bytes:
        return bytes(self.objects.get(name).bytes())

    def entries(self, folder: str = "") -> Iterator[Entry]:
        for block in self.objects.list(folder or None):
            for found in block:
                yield Entry(found["path"], found["size"], found["last_modified"].timestamp())

    def listing(self, folder: str = "") -> tuple[list[str], list[str]]:
        found = self.objects.list_with_delimiter(folder or None)
        names = [name.rpartition("/")[2] for name in (str(prefix).rstrip("/") for prefix in found["common_prefixes"])]
        return sorted(names), sorted(entry["path"].rpartition("/")[2] for entry in found["objects"])

    def written(self, name: str) -> float:
        # A file is listed below a folder of its own name nowhere: ask for it by itself.
        times = [entry.written for entry in self.entries(name)] or [self._modified(name)]
        return max(times)

    def delete(self, name: str) -> None:
        self.objects.delete(name)

    def drop(self, folder: str) -> None:
        if names := [entry.name for entry in self.entries(folder)]:
            self.objects.delete(names)

    def get_all(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(self._get_if_there, names)
            yield from ((name, data) for name, data in zip(names, found) if data is not None)

    def _modified(self, name: str) -> float:
        try:
            return float(self.objects.head(name)["last_modified"].timestamp())
        except FileNotFoundError:
            return time.time()

    def _get_if_there(self, name: str) -> bytes | None:
        try:
            return self.get(name)
        except FileNotFoundError:
            return None


def open_bucket(address: str) -> Bucket:
    """The place of an address such as "s3://bucket/prefix".

    Raises:
        ValueError: An address without a bucket; obstore is not installed.
    """
    try:
        from obstore.store import MemoryStore, S3Store, from_url
    except ImportError:
        raise ValueError(f"a store at {address!r} needs obstore: pip install 'interp[cloud]'") from None
    parts = urlsplit(address)
    if parts.scheme == "memory":
        return Bucket(MemoryStore(), address)
    if not parts.netloc:
        raise ValueError(f"{address!r} names no bucket; write it as s3://bucket/prefix")
    if parts.scheme == "s3":
        return Bucket(S3Store(parts.netloc, prefix=parts.path.strip("/") or None), address)
    return Bucket(from_url(address), address)
