"""Buckets on loopback: `gs://` by gcp-storage-emulator with what it lacks, `s3://` by moto's server.

A test file imports the fixtures that it uses. Whoever starts a process gives it `server.environment`; in this process
the fixtures have set it. `server.fault` makes a request fail.
"""

import collections
import functools
import http.server
import importlib.util
import io
import json
import re
import socket
import socketserver
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

BUCKET = "bucket"
# Of a request: method, path with its bucket and object, length of its body. Returns None, a status, or DROP.
Fault = Callable[[str, str, int], int | str | None]
DROP = "drop"


class Gcs:
    """Google Cloud Storage's JSON interface in memory, with preconditions on generations.

    Attributes:
      requests: how often each method was asked for.
      fault: asked before each request.
      page: the most names of one answer.
    """

    def __init__(self, bucket: str = BUCKET):
        from gcp_storage_emulator.handlers import buckets
        from gcp_storage_emulator.storage import Storage

        self.storage = Storage(use_memory_fs=True)
        # New buckets keep what is deleted for seven days; in memory that is for ever.
        made = buckets.create_bucket(bucket, self.storage)
        assert made is not False
        self.storage.buckets[bucket]["softDeletePolicy"] = {"retentionDurationSeconds": "0"}
        self.lock = threading.Lock()
        self.uploads: dict[str, tuple[str, dict[str, int]]] = {}
        self.page = 1000
        self.requests: collections.Counter[str] = collections.Counter()
        self.fault: Fault | None = None
        self._server = _Server(("127.0.0.1", 0), functools.partial(_handler(), self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which gcsfs, Google's libraries and TensorStore find it, and look for no credentials."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GCE_METADATA_ROOT": "127.0.0.1:1",
            "NO_GCE_CHECK": "true",
            # Of an epath that finds TensorFlow: it would ask Google.
            "EPATH_USE_TF": "false",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # which asks for credentials
        }

    def names(self, prefix: str = "", bucket: str = BUCKET) -> list[str]:
        """Objects, sorted."""
        with self.lock:
            return sorted(name for name in self.storage.objects.get(bucket, {}) if name.startswith(prefix))

    def content(self, name: str, bucket: str = BUCKET) -> bytes:
        with self.lock:
            return self.storage.get_file(bucket, name)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Passes over clients that were killed."""


@functools.cache
def _handler() -> type:
    from gcp_storage_emulator import server as emulator

    class Handler(emulator.RequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, gcs: Gcs, *args: Any):
            self.gcs, self.generation = gcs, None
            super().__init__(gcs.storage, *args)

        def _answer(self, method: str) -> None:
            body = emulator._read_raw_data(self) or b""
            del self.headers["Transfer-Encoding"], self.headers["Content-Length"]
            self.headers["Content-Length"] = str(len(body))
            self.gcs.requests[method] += 1
            found = self.gcs.fault(method, self._told(body), len(body)) if self.gcs.fault else None
            if found == DROP:
                self.close_connection = True
                self.connection.close()
                return None
            if found is not None:
                return self._refuse(int(found))
            stream, self.rfile = self.rfile, io.BytesIO(body)
            try:
                with self.gcs.lock:
                    status = self._precondition(method, body)
                    if status is None:
                        self.wfile, wire = io.BytesIO(), self.wfile
                        try:
                            self._act(method)
                        finally:
                            answer, self.wfile = self.wfile.getvalue(), wire
                        begun = re.search(rb"^Location: .*[?&]upload_id=([^&\s]+)", answer, re.M)
                        if begun:
                            self.gcs.uploads[urllib.parse.unquote(begun[1].decode())] = (self.name, self._wanted())
                if status is None:
                    self.wfile.write(answer)
                else:
                    self._refuse(status)
            finally:
                self.rfile = stream

        def _act(self, method: str) -> None:
            bucket, name = self._object()
            if method == "GET" and bucket in self.storage.buckets and self.path.partition("?")[0].endswith("/o"):
                content = json.dumps(self._list()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            else:
                emulator.Router(self).handle(method)

        def do_GET(self):
            self._answer("GET")

        def do_POST(self):
            self._answer("POST")

        def do_PUT(self):
            self._answer("PUT")

        def do_DELETE(self):
            self._answer("DELETE")

        def do_PATCH(self):
            self._answer("PATCH")

        def _told(self, body: bytes) -> str:
            name = "" if self._object()[1] or "name" in self._query() else _name(body)
            return urllib.parse.unquote(self.path) + (f"&name={name}" if name else "")

        def _refuse(self, status: int) -> None:
            self.send_response(status)
            content = b"" if status == 304 else b'{"error": {"code": %d, "message": "asked for by a test"}}' % status
            self.send_header("Content-Type", "application/json")
            if status != 304:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def end_headers(self):
            if self.generation is not None:
                self.send_header("x-goog-generation", self.generation)
            super().end_headers()

        def _query(self) -> dict[str, str]:
            parsed = urllib.parse.urlsplit(self.path)
            return {key: value[0] for key, value in urllib.parse.parse_qs(parsed.query).items()}

        def _wanted(self) -> dict[str, int]:
            query = self._query()
            return {key: int(query[key]) for key in ("ifGenerationMatch", "ifGenerationNotMatch") if key in query}

        def _precondition(self, method: str, body: bytes) -> int | None:
            """The status where a precondition does not hold, as of cloud.google.com/storage/docs/request-preconditions."""
            query, wanted = self._query(), self._wanted()
            bucket, name = self._object()
            if "upload_id" in query:  # a resumable upload is judged when it ends
                name, wanted = self.gcs.uploads.get(query["upload_id"], (name, wanted))
            elif not name:
                name = query.get("name") or _name(body)
            have = self.gcs.storage.objects.get(bucket, {}).get(name)
            generation = int(have["generation"]) if have else 0
            self.generation = str(generation) if have and method == "GET" else None
            self.name = name
            if wanted.get("ifGenerationMatch", generation) != generation:
                return 412
            if wanted.get("ifGenerationNotMatch") == generation:
                return 304 if method == "GET" else 412
            return None

        def _object(self) -> tuple[str, str]:
            """The bucket and the object that the path names."""
            parts = urllib.parse.urlsplit(self.path).path.partition("/b/")[2].split("/")
            return urllib.parse.unquote(parts[0]), urllib.parse.unquote("/".join(parts[2:])).removesuffix("/compose")

        def _list(self) -> dict[str, Any]:
            """A page of names; the emulator knows neither pages nor offsets."""
            query = self._query()
            items, prefixes = self.storage.get_file_list(
                self._object()[0], query.get("prefix"), query.get("delimiter"), query.get("matchGlob")
            )
            found = sorted([(item["name"], item) for item in items] + [(prefix, None) for prefix in prefixes])
            first, end = query.get("startOffset", ""), query.get("endOffset")
            after = query.get("pageToken", "")
            found = [pair for pair in found if pair[0] >= first and pair[0] > after and (not end or pair[0] < end)]
            size = min(int(query.get("maxResults", self.gcs.page)), self.gcs.page)
            more = {"nextPageToken": found[size - 1][0]} if len(found) > size else {}
            page = found[:size]
            return more | {
                "kind": "storage#objects",
                "items": [item for _, item in page if item is not None],
                "prefixes": [name for name, item in page if item is None],
            }

    return Handler


def _name(body: bytes) -> str:
    """The object's, which gcsfs says in the JSON at the head of an upload."""
    found = re.search(rb'"name":\s*("(?:[^"\\\\]|\\\\.)*")', body[:4096])
    return json.loads(found[1]) if found else ""


class S3:
    """Amazon's S3 in memory, by moto; attributes as `Gcs`."""

    def __init__(self, bucket: str = BUCKET):
        import boto3
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *args: Any) -> None:
                """No word about each request."""

        self.requests: collections.Counter[str] = collections.Counter()
        self.fault: Fault | None = None
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        # Its memory is the process's.
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")).close()
        self.client = boto3.client("s3", endpoint_url=self.url, **_KEYS)
        self.client.create_bucket(Bucket=bucket)

    def _answer(self, environ: dict[str, Any], start_response: Callable) -> Any:
        method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
        self.requests[method] += 1
        path = environ["PATH_INFO"] + (f"?{query}" if query else "")
        found = self.fault(method, path, int(environ.get("CONTENT_LENGTH") or 0)) if self.fault else None
        if found == DROP:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        if found is not None:
            code = {403: "AccessDenied", 404: "NoSuchKey", 503: "SlowDown"}.get(int(found), "InternalError")
            start_response(f"{found} {code}", [("Content-Type", "application/xml"), ("Connection", "close")])
            if method == "HEAD":
                return []
            return [f"<Error><Code>{code}</Code><Message>asked for by a test</Message></Error>".encode()]
        return self._application(environ, start_response)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which s3fs and Amazon's libraries find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": _KEYS["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": _KEYS["aws_secret_access_key"],
            "AWS_DEFAULT_REGION": _KEYS["region_name"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "EPATH_USE_TF": "false",
        }

    def names(self, prefix: str = "", bucket: str = BUCKET) -> list[str]:
        """Objects, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(found["Key"] for page in pages for found in page.get("Contents", ()))

    def content(self, name: str, bucket: str = BUCKET) -> bytes:
        return self.client.get_object(Bucket=bucket, Key=name)["Body"].read()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


_KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


def _served(server: Gcs | S3) -> Iterator[Any]:
    """Gives a server, found by this process, too, whose libraries have forgotten the one before."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        _forget()
        yield server
        _forget()
    server.close()


def _forget() -> None:
    import fsspec

    for name in ("gcsfs", "s3fs"):
        if name in sys.modules:
            sys.modules[name].core.__dict__[
                "GCSFileSystem" if name == "gcsfs" else "S3FileSystem"
            ].clear_instance_cache()
    fsspec.AbstractFileSystem.clear_instance_cache()
    if "orbax.checkpoint" in sys.modules:
        from orbax.checkpoint._src.path import gcs_utils

        gcs_utils.get_bucket.cache_clear()


def _needs(*modules: str) -> None:
    """Skips by the name of what is not installed; gcsfs looks at the environment when it is imported."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def gcs() -> Iterator[Gcs]:
    """Google Cloud Storage with an empty bucket, `gs://bucket`."""
    _needs("gcp_storage_emulator", "gcsfs")
    yield from _served(Gcs())


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    """S3 with an empty bucket, `s3://bucket`."""
    _needs("flask_cors", "moto", "s3fs")
    yield from _served(S3())
