"""A fleet with nothing but S3 between its parts: moto's server on loopback, which answers as S3 does but looks at no signature."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from fleets import counts_once_through_kills, gauge, puts, reads, until
from moto.server import ThreadedMotoServer
from servers import free_ports
from sidecars import sidecar

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAFORTESTS", "AWS_SECRET_ACCESS_KEY": "hush-hush", "AWS_REGION": "eu-west-1"}


class S3:
    """A server that keeps what it has while it does not answer."""

    address = "s3://fleet/a/b"

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.start()
        self.client: Any = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        self.client.create_bucket(Bucket="fleet", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    def start(self) -> None:
        self.server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.server.start()

    def objects(self, prefix: str = "a/b/") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="fleet", Prefix=prefix)
        return [found["Key"].removeprefix(prefix) for page in pages for found in page.get("Contents", [])]

    def read(self, name: str) -> bytes:
        body: bytes = self.client.get_object(Bucket="fleet", Key=f"a/b/{name}")["Body"].read()
        return body

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        self.server.stop()
        try:
            yield
        finally:
            self.start()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3()
    yield server
    server.server.stop()


@pytest.fixture
def keys(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What sidecars find in their environment."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3.endpoint, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("keys")
def test_sent_is_counted_whatever_is_killed(s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = counts_once_through_kills(tmp_path, s3)
    with capsys.disabled():
        print(f"\n{text}")
    assert s3.objects("a/")[0].startswith("b/"), "nothing lies outside of the prefix"
    for log in tmp_path.rglob("log"):
        assert not any(secret in log.read_text() for secret in KEYS.values() if secret != "eu-west-1"), log


@pytest.mark.usefixtures("keys")
def test_what_s3_refuses_is_told_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aggregator, edge = tmp_path / "aggregator", tmp_path / "edge"
    aggregator.mkdir()
    edge.mkdir()
    with sidecar(aggregator, config=reads("s3://no-such-bucket/x")) as running:
        until(lambda: "NoSuchBucket" in running.get("/readyz").body.decode(), running.log, 60)
        assert running.get("/readyz").status == 200
        assert gauge(running, "barograph_problems") == 1
    with sidecar(edge, config=puts("s3://fleet/nobody", "edge")) as running:
        until(lambda: "no aggregator reads there" in running.log(), running.log, 60)
    # Plain HTTP goes no further than this machine, unless it is said.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.1:9000")
    edge = tmp_path / "open"
    edge.mkdir()
    with sidecar(edge, config=puts("s3://fleet/a", "edge")) as running:
        until(lambda: "must begin with https://" in running.log(), running.log, 60)
        assert "hush" not in running.log()


@pytest.mark.usefixtures("keys")
def test_keys_of_a_profile_are_found(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "mine")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[mine]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = hush-too\n")
    (tmp_path / ".aws" / "config").write_text("[profile mine]\nregion = eu-west-1\n")
    folder = tmp_path / "aggregator"
    folder.mkdir()
    with sidecar(folder, config=reads("s3://fleet/profile")) as running:
        until(lambda: s3.objects("profile/") == ["aggregator"], running.log, 60)
        assert "hush" not in running.log()
