"""A real HTTP server that speaks S3, for tests of stores in a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

KEYS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "its-secret"}


@contextmanager
def serving_objects() -> Iterator[dict[str, str]]:
    """Run the server; gives the environment that leads to it."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": "eu-central-1", **KEYS}
    finally:
        server.stop()


def make_bucket(environment: dict[str, str], name: str) -> None:
    """Make an empty bucket."""
    import botocore.session

    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": environment["AWS_REGION"]}
    )


@contextmanager
def refusing_unknown_keys(environment: dict[str, str]) -> Iterator[None]:
    """Have the server check who asks: nobody has an account."""

    def after(requests: str) -> None:
        url = f"{environment['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
        plain = {"Content-Type": "text/plain"}
        urlopen(Request(url, requests.encode(), plain, method="POST")).close()

    after("0")
    try:
        yield
    finally:
        after("inf")


def without_credentials() -> dict[str, str]:
    """This process's environment, with nothing in it that leads to an object store."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
