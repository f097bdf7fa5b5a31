"""Open the store that the settings name."""

from __future__ import annotations

from pathlib import Path

from bitladder.errors import ConfigError
from dispatcher.batch.folder_store import FolderStore
from dispatcher.batch.object_store import Store

_SCHEME = "s3://"


def open_store(place: str) -> Store:
    """Return the store at `[files].store`: a folder, or s3://bucket/prefix.

    Raises:
        ConfigError: a bucket cannot be used as it is configured.

    """
    if "://" not in place:
        return FolderStore(Path(place))
    bucket, _, prefix = place.removeprefix(_SCHEME).partition("/")
    if not place.startswith(_SCHEME) or not bucket:
        raise ConfigError(f"files.store must be a folder or s3://bucket/prefix, got {place!r}")
    try:
        from dispatcher.batch.s3_store import S3Store
    except ImportError as error:
        raise ConfigError(f"files.store is {place!r}, which needs obstore: pip install 'bitladder[s3]'") from error
    try:
        return S3Store(bucket, prefix.strip("/"))
    except Exception as error:  # whatever obstore finds wrong in the environment
        raise ConfigError(f"files.store {place!r} cannot be used: {error}") from error
