"""S3 and what speaks its protocol. The only file that imports boto3."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from calibration.errors import SourceError
from calibration.sample.prompt import Bad, Prompt, read_prompts
from calibration.sample.records import read_values
from calibration.sample.source import Unit

T = TypeVar("T")
# One answer takes tens of milliseconds; sixteen at a time, in order, keep the sampler busy. A large object is read as a
# stream when its turn comes.
_AT_ONCE = 16
_SMALL_BYTES = 2**20
# What concerns the bucket or the account, not one object; the message says what to do.
_REFUSED = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "access is denied; s3:ListBucket and s3:GetObject are needed",
    "403": "access is denied; s3:ListBucket and s3:GetObject are needed",
    "InvalidAccessKeyId": "the access key is unknown",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the session token has expired",
    "InvalidBucketName": "the bucket's name is wrong",
}


class S3Object:
    """One object."""

    def __init__(self, name: str, body: Callable[[], BinaryIO | Bad]) -> None:
        self.name = name
        self._body = body

    def prompts(self) -> Iterator[list[Prompt | Bad]]:
        body = self._body()
        if isinstance(body, Bad):
            yield [body]
            return
        try:
            for value in read_values(self.name, body):
                yield [value] if isinstance(value, Bad) else read_prompts(value)
        except (BotoCoreError, OSError) as error:  # the connection broke in the middle of an object
            yield [Bad(f"cut off: {type(error).__name__}")]


class S3Prefix:
    """The objects of a bucket whose keys begin with a prefix, in the order of their keys."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None) -> None:
        self.name = f"s3://{bucket}/{prefix}"
        self._bucket = bucket
        self._prefix = prefix
        config = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5, read_timeout=60)
        self._client: Any = _named(  # Any: boto3 makes its clients at run time
            self.name, lambda: boto3.Session().client("s3", endpoint_url=endpoint_url, config=config)
        )

    def units(self, after: str) -> Iterator[Unit]:
        waiting: deque[S3Object] = deque()
        is_empty = True
        with ThreadPoolExecutor(_AT_ONCE, "s3") as pool:
            for key, size in self._keys(after):
                is_empty = False
                is_small = size <= _SMALL_BYTES
                body = pool.submit(self._fetch, key).result if is_small else partial(self._open, key)
                waiting.append(S3Object(key, body))
                if len(waiting) >= _AT_ONCE:
                    yield waiting.popleft()
            yield from waiting
        if is_empty and not after:
            raise SourceError(f"{self.name} is empty: no object has this prefix")

    def _keys(self, after: str) -> Iterator[tuple[str, int]]:
        """Page through the keys; the next page is asked for when this one is used up."""
        where = {"Bucket": self._bucket, "Prefix": self._prefix, "StartAfter": after}
        while True:
            page = _named(self.name, partial(self._client.list_objects_v2, **where))
            found = ((its["Key"], its["Size"]) for its in page.get("Contents", ()))
            yield from ((key, size) for key, size in found if not key.endswith("/"))  # consoles make these for folders
            if not page["IsTruncated"]:
                return
            where = {"Bucket": self._bucket, "Prefix": self._prefix, "ContinuationToken": page["NextContinuationToken"]}

    def _fetch(self, key: str) -> BinaryIO | Bad:
        body = self._open(key)
        try:
            return body if isinstance(body, Bad) else io.BytesIO(body.read())
        except (BotoCoreError, OSError) as error:
            return Bad(f"cannot be read: {type(error).__name__}")

    def _open(self, key: str) -> BinaryIO | Bad:
        try:
            body: BinaryIO = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
        except ClientError as error:  # deleted since it was listed, archived, or not for us
            return Bad(f"cannot be read: {error.response['Error'].get('Code', 'error')}")
        except BotoCoreError as error:
            return Bad(f"cannot be read: {type(error).__name__}")
        return body


def _named(name: str, call: Callable[[], T]) -> T:
    """Turn what concerns the whole source into our error."""
    try:
        return call()
    except ClientError as error:
        code = error.response["Error"].get("Code", "")
        raise SourceError(f"cannot list {name}: {_REFUSED.get(code, error)}") from error
    except (BotoCoreError, ValueError) as error:  # no credentials, no connection, a wrong endpoint
        raise SourceError(f"cannot list {name}: {error}") from error
