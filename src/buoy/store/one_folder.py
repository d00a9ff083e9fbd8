"""A folder of any name and place as a store with one bucket, for those who bring a folder of their own."""

from __future__ import annotations

from pathlib import Path

from buoy.errors import MissingError, StoreError
from buoy.store.folder import FolderStore

__all__ = ["OneFolder"]


class OneFolder(FolderStore):
    """`bucket` is the folder; a key is the path of a file inside it. What is an object is as in `FolderStore`."""

    def __init__(self, folder: Path) -> None:
        folder = Path(folder).resolve()
        super().__init__(folder.parent)
        self.bucket = folder.name

    def __repr__(self) -> str:
        return f"OneFolder({str(self._base())!r})"

    def buckets(self) -> list[str]:
        """The one, if it is there."""
        return [self.bucket] if self._base().is_dir() else []

    def create_bucket(self, bucket: str) -> bool:
        """Make the folder; `False` if it was there already."""
        self._check(bucket)
        try:
            self._base().mkdir(parents=True)
        except FileExistsError:
            return False
        return True

    def delete_bucket(self, bucket: str) -> None:
        """Refused: the folder is its owner's."""
        raise StoreError(f"{self._base()} is not buoy's to delete", "delete it yourself")

    def _check(self, bucket: str) -> None:
        if bucket != self.bucket:
            raise MissingError(f"there is no bucket {bucket!r} in {self}")

    def _base(self) -> Path:
        return self.root / self.bucket
