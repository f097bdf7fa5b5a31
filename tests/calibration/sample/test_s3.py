"""S3 over HTTP, from moto's server in a process of its own."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest

from calibration.errors import InputError, SourceError
from calibration.sample import s3
from calibration.sample.s3 import S3Prefix
from calibration.sample.sets import load
from tests.calibration.sample.breaking import BREAKS, before
from tests.calibration.sample.conftest import RunSample, prompts, read_texts, skipped

Bucket = Any  # boto3 makes its types at run time


def put_each(bucket: Bucket, texts: list[str]) -> None:
    """As the article has it: one object of JSON for every prompt."""
    for number, text in enumerate(texts):
        bucket.put_object(Key=f"prompts/{number:04}.json", Body=json.dumps({"prompt": text, "tier": "int4"}).encode())


def test_objects_of_one_prompt_and_objects_of_many_are_read(
    bucket: Bucket, s3_url: str, out: Path, run_sample: RunSample
) -> None:
    texts = prompts(90)
    lines = "".join(json.dumps({"prompt": text}) + "\n" for text in texts[30:60])
    put_each(bucket, texts[:30])
    bucket.put_object(Key="prompts/a.jsonl", Body=lines.encode())
    bucket.put_object(Key="prompts/b.jsonl.gz", Body=gzip.compress(lines.replace("prompt", "text").encode()))
    bucket.put_object(Key="prompts/", Body=b"")
    bucket.put_object(Key="elsewhere/c.jsonl", Body=b'{"prompt": "not asked for"}')

    made = run_sample(S3Prefix("prompt-logs", "prompts/", s3_url), count=60, heldout=40)

    assert set(read_texts(out, "calibration") + read_texts(out, "heldout")) == set(texts[:60])
    assert made.manifest["counts"]["seen"] == 90
    assert made.manifest["counts"]["repeats_met"] == 30
    assert made.manifest["source"] == f"s3://prompt-logs/prompts/ at {s3_url}"


def test_bad_objects_are_skipped_and_listed_by_key(
    bucket: Bucket, s3_url: str, out: Path, run_sample: RunSample
) -> None:
    put_each(bucket, prompts(40))
    for key, body in (("broken.json", b'{"prompt'), ("empty.json", b""), ("torn.jsonl.gz", gzip.compress(b"{}")[:9])):
        bucket.put_object(Key=f"prompts/{key}", Body=body)

    run_sample(S3Prefix("prompt-logs", "prompts/", s3_url))

    assert skipped(out) == {
        "prompts/broken.json:1": "cut off",
        "prompts/empty.json:1": "empty file",
        "prompts/torn.jsonl.gz:1": "gzip is cut off",
    }


def test_objects_as_a_delivery_stream_writes_them_are_read(
    bucket: Bucket, s3_url: str, out: Path, run_sample: RunSample
) -> None:
    """Firehose puts records one behind the other, and a gzip that was being written may be cut."""
    texts = prompts(90)
    records = [json.dumps({"prompt": text, "score": math.nan}) for text in texts]
    bucket.put_object(Key="prompts/2026/11/29/04/firehose-1", Body="".join(records[:40]).encode())
    bucket.put_object(Key="prompts/2026/11/29/05/firehose-1.gz", Body=gzip.compress(" ".join(records[40:60]).encode()))
    bucket.put_object(Key="prompts/a.json", Body=json.dumps([{"prompt": text} for text in texts[60:]]).encode("utf-16"))
    cut = gzip.compress("".join(json.dumps({"prompt": text}) for text in prompts(500, seed=4)).encode())[:-9]
    bucket.put_object(Key="prompts/cut.gz", Body=cut)

    made = run_sample(S3Prefix("prompt-logs", "prompts/", s3_url), count=900, heldout=300)

    counts = made.manifest["counts"]
    assert set(texts) <= set(read_texts(out, "calibration") + read_texts(out, "heldout"))
    assert counts["prompts"] > 560
    assert set(counts["skipped"]) <= {"cut off", "gzip is cut off"}
    assert counts["bytes"]["understood"] > 100 * counts["bytes"]["not understood"]


def test_an_object_that_is_mostly_not_understood_ends_the_run_and_is_named(
    bucket: Bucket, s3_url: str, out: Path, run_sample: RunSample
) -> None:
    put_each(bucket, prompts(60))
    table = "id,prompt\n" + "".join(f'{number},"{text}"\n' for number, text in enumerate(prompts(50, seed=3)))
    bucket.put_object(Key="prompts/table", Body=table.encode())

    with pytest.raises(SourceError) as refused:
        run_sample(S3Prefix("prompt-logs", "prompts/", s3_url))

    said = str(refused.value)
    assert f"prompts/table: {len(table):,} of {len(table):,} bytes were not understood" in said
    assert "the first at byte 0: found 'i' (expecting value), expected JSON objects with \"prompt\"" in said
    assert not out.exists()


def test_more_keys_than_one_page_and_large_objects_are_streamed(
    bucket: Bucket, s3_url: str, run_sample: RunSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_each(bucket, prompts(40))
    bucket.put_object(Key="prompts/z.jsonl", Body="".join(f'{{"prompt": "{text}"}}\n' for text in prompts(60)).encode())
    monkeypatch.setattr(s3, "_SMALL_BYTES", 2000)
    source = S3Prefix("prompt-logs", "prompts/", s3_url)
    source._client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: params | {"MaxKeys": 7}
    )

    made = run_sample(source)

    assert made.manifest["counts"]["seen"] == 100
    assert made.manifest["counts"]["skipped"] == {}


def test_a_run_that_was_cut_off_fetches_only_what_is_left(
    bucket: Bucket, s3_url: str, out: Path, run_sample: RunSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_each(bucket, prompts(100))
    fetched: list[str] = []

    def watched(*, breaks_at: int | None) -> S3Prefix:
        source = S3Prefix("prompt-logs", "prompts/", s3_url)

        def watch(params: dict[str, Any], **_: object) -> None:
            fetched.append(params["Key"])

        source._client.meta.events.register("provide-client-params.s3.GetObject", watch)
        if breaks_at is not None:
            listed = source._keys

            def broken(after: str) -> Any:  # noqa: ANN401  (a generator of keys)
                for number, key in enumerate(listed(after)):
                    if number == breaks_at:
                        raise SourceError("the network went away")
                    yield key

            monkeypatch.setattr(source, "_keys", broken)
        return source

    with pytest.raises(SourceError, match="went away"):
        run_sample(watched(breaks_at=80))
    fetched.clear()

    made = run_sample(watched(breaks_at=None))

    assert made.manifest["counts"]["seen"] == 100
    assert len(fetched) <= 40
    assert len(load(out).calibration) == 40


@pytest.mark.parametrize(("how", "small"), [*((how, 2**20) for how in BREAKS), ("cut off", 0)])
def test_an_outage_in_the_middle_is_no_bad_object_and_the_next_run_goes_on(
    bucket: Bucket, s3_url: str, run_sample: RunSample, monkeypatch: pytest.MonkeyPatch, how: str, small: int
) -> None:
    put_each(bucket, prompts(60))
    monkeypatch.setattr(s3, "_ATTEMPTS", 1)
    monkeypatch.setattr(s3, "_SMALL_BYTES", small)

    with before(s3_url) as server:
        server.left, server.how = 30, how
        with pytest.raises(
            SourceError, match=r"cannot read 'prompts/00[123]\d\.json' of s3://prompt-logs/prompts/ at "
        ):
            run_sample(S3Prefix("prompt-logs", "prompts/", server.url))
        server.left = 10**9
        server.fetched.clear()
        made = run_sample(S3Prefix("prompt-logs", "prompts/", server.url))

    assert (made.manifest["counts"]["seen"], made.manifest["counts"]["skipped"]) == (60, {})
    assert 30 <= len(server.fetched) < 50


def test_another_server_is_another_source(bucket: Bucket, s3_url: str, run_sample: RunSample) -> None:
    put_each(bucket, prompts(60))
    run_sample(S3Prefix("prompt-logs", "prompts/", s3_url))

    with before(s3_url) as server:
        assert not run_sample(S3Prefix("prompt-logs", "prompts/", server.url)).skipped
        assert run_sample(S3Prefix("prompt-logs", "prompts/", server.url)).skipped


def test_an_empty_prefix_and_a_missing_bucket_say_so(bucket: Bucket, s3_url: str, run_sample: RunSample) -> None:
    assert bucket.name == "prompt-logs"
    with pytest.raises(SourceError, match=r"s3://prompt-logs/prompts/ at .* is empty: no object has this prefix"):
        run_sample(S3Prefix("prompt-logs", "prompts/", s3_url))
    with pytest.raises(SourceError, match=r"cannot list s3://no-such-bucket/ at .*: there is no such bucket"):
        run_sample(S3Prefix("no-such-bucket", "", s3_url))


def test_denied_access_says_which_rights_are_needed(
    bucket: Bucket, s3_url: str, run_sample: RunSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_each(bucket, prompts(3))
    user = {"UserName": "nobody"}
    iam = boto3.client("iam", endpoint_url=s3_url)
    iam.create_user(**user)
    key = iam.create_access_key(**user)["AccessKey"]
    httpx2.post(f"{s3_url}/moto-api/reset-auth", content=b"0")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    try:
        with pytest.raises(SourceError, match="access is denied; s3:ListBucket and s3:GetObject are needed"):
            run_sample(S3Prefix("prompt-logs", "prompts/", s3_url))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")
        with pytest.raises(SourceError, match="the access key is unknown"):
            run_sample(S3Prefix("prompt-logs", "prompts/", s3_url))
    finally:
        httpx2.post(f"{s3_url}/moto-api/reset-auth", content=b"Infinity")


def test_objects_that_may_not_be_read_are_listed_and_named_when_nothing_is_left(
    bucket: Bucket, s3_url: str, out: Path, run_sample: RunSample
) -> None:
    put_each(bucket, prompts(50))

    def without(first: int) -> S3Prefix:
        source = S3Prefix("prompt-logs", "prompts/", s3_url)

        def gone(params: dict[str, Any], **_: object) -> dict[str, Any]:
            number = int(params["Key"][8:12])
            return params | {"Key": "deleted since"} if number >= first else params

        source._client.meta.events.register("provide-client-params.s3.GetObject", gone)
        return source

    made = run_sample(without(48))
    assert made.manifest["counts"]["skipped"] == {"cannot be read: NoSuchKey": 2}
    assert list(skipped(out)) == ["prompts/0048.json:1", "prompts/0049.json:1"]

    with pytest.raises(
        InputError, match=r"0 different prompts among 50 entries .*skipped: 50 cannot be read: NoSuchKey"
    ):
        run_sample(without(0), force=True)


def test_no_credentials_and_no_server_say_what_is_missing(
    run_sample: RunSample, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceError, match="Unable to locate credentials"):
        run_sample(S3Prefix("prompt-logs", "", "http://127.0.0.1:1"))

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(SourceError, match="Could not connect to the endpoint URL"):
        run_sample(S3Prefix("prompt-logs", "", "http://127.0.0.1:1"))
