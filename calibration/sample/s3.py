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
from calibration.sample.json_values import read_values
from calibration.sample.prompt import BadEntry, Prompt, read_prompts
from calibration.sample.source import Unit
from calibration.sample.understood import Extent

T = TypeVar("T")
# One answer takes tens of milliseconds; sixteen at a time, in order, keep the sampler busy. A large object is read as a
# stream when its turn comes.
_AT_ONCE = 16
_SMALL_BYTES = 2**20
_ATTEMPTS = 5
# What concerns one object: deleted since it was listed, not for us, archived, encrypted with a key of the client's. All
# else, such as an outage, ends the run, which goes on later: a set must not be made of what was read before it.
_OF_AN_OBJECT = {"NoSuchKey", "404", "AccessDenied", "403", "InvalidObjectState", "InvalidRequest"}
# What concerns the bucket or the account, not one object; the message says what to do.
_REFUSED = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "access is denied; s3:ListBucket and s3:GetObject are needed",
    "403": "access is denied; s3:ListBucket and s3:GetObject are needed",
    "InvalidAccessKeyId": "the access key is unknown",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is wrong",
    "InvalidBucketName": "the bucket's name is wrong",
}


class _S3Object:
    """One object."""

    def __init__(self, name: str, body: Callable[[], BinaryIO | BadEntry], reading: str, group_field: str) -> None:
        self.name = name
        self.extent = Extent()
        self._body = body
        self._reading = reading
        self._group_field = group_field

    def prompts(self) -> Iterator[list[Prompt | BadEntry]]:
        body = self._body()
        if isinstance(body, BadEntry):
            yield [body]
            return
        values = read_values(body, self.extent)
        while (value := _named(self._reading, partial(next, values, None))) is not None:
            yield [value] if isinstance(value, BadEntry) else read_prompts(value.content, self._group_field)


class S3Prefix:
    """The objects of a bucket whose keys begin with a prefix, in the order of their keys."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None, group_field: str = "") -> None:
        self.name = f"s3://{bucket}/{prefix}"
        self._bucket = bucket
        self._prefix = prefix
        self._group_field = group_field
        retries = {"mode": "standard", "max_attempts": _ATTEMPTS}
        config = Config(retries=retries, connect_timeout=5, read_timeout=60)
        self._client: Any = _named(  # Any: boto3 makes its clients at run time
            f"list {self.name}", lambda: boto3.Session().client("s3", endpoint_url=endpoint_url, config=config)
        )
        server: str = self._client.meta.endpoint_url  # the environment may name one, too
        if ".amazonaws.com" not in server:  # Amazon's buckets have one name for all regions
            self.name += f" at {server}"

    def units(self, after: str) -> Iterator[Unit]:
        waiting: deque[_S3Object] = deque()
        is_empty = True
        with ThreadPoolExecutor(_AT_ONCE, "s3") as pool:
            for key, size in self._keys(after):
                is_empty = False
                is_small = size <= _SMALL_BYTES
                body = pool.submit(self._fetch, key).result if is_small else partial(self._open, key)
                waiting.append(_S3Object(key, body, self._reading(key), self._group_field))
                if len(waiting) >= _AT_ONCE:
                    yield waiting.popleft()
            yield from waiting
        if is_empty and not after:
            raise SourceError(f"{self.name} is empty: no object has this prefix")

    def _keys(self, after: str) -> Iterator[tuple[str, int]]:
        """Page through the keys; the next page is asked for when this one is used up."""
        where = {"Bucket": self._bucket, "Prefix": self._prefix, "StartAfter": after}
        while True:
            page = _named(f"list {self.name}", partial(self._client.list_objects_v2, **where))
            objects = ((item["Key"], item["Size"]) for item in page.get("Contents", ()))
            yield from ((key, size) for key, size in objects if not key.endswith("/"))  # folders of a console
            if not page["IsTruncated"]:
                return
            where = {"Bucket": self._bucket, "Prefix": self._prefix, "ContinuationToken": page["NextContinuationToken"]}

    def _fetch(self, key: str) -> BinaryIO | BadEntry:
        body = self._open(key)
        return body if isinstance(body, BadEntry) else io.BytesIO(_named(self._reading(key), body.read))

    def _open(self, key: str) -> BinaryIO | BadEntry:
        def get() -> BinaryIO | BadEntry:
            try:
                body: BinaryIO = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
            except ClientError as error:
                code = error.response["Error"].get("Code", "")
                if code in _OF_AN_OBJECT or code.startswith("KMS."):
                    return BadEntry(f"cannot be read: {code}")
                raise
            return body

        return _named(self._reading(key), get)

    def _reading(self, key: str) -> str:
        return f"read {key!r} of {self.name}"


def _named(action: str, call: Callable[[], T]) -> T:
    """Turn what concerns the whole source into our error."""
    try:
        return call()
    except ClientError as error:
        code = error.response["Error"].get("Code", "")
        raise SourceError(f"cannot {action}: {_REFUSED.get(code, error)}") from error
    except (BotoCoreError, OSError, ValueError) as error:  # no credentials, no connection, a wrong endpoint
        raise SourceError(f"cannot {action}: {error}") from error
