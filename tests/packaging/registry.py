"""A registry of npm that has nothing but the packages of etp-ws: those that are packed, and of the others what npm asks
before it sees that they are for another platform."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from distribution import Tarball


@contextmanager
def registry(packed: list[Tarball], platforms: dict[str, dict[str, str]]) -> Iterator[str]:
    """Serves packages as long as the context lasts; its value is the registry's URL."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.files = {package.path.name: package.path.read_bytes() for package in packed}
    server.packages = {}
    version = packed[0].manifest["version"]
    for name, platform in platforms.items():
        fields = {field: [platform[field]] for field in ("os", "cpu", "libc") if field in platform}
        publish(server, {"name": f"etp-ws-{name}", "version": version, **fields}, b"")
    for package in packed:
        publish(server, package.manifest, package.path.read_bytes())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def publish(server: Any, manifest: dict[str, Any], tarball: bytes) -> None:
    name, version = manifest["name"], manifest["version"]
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    dist = {"tarball": f"{server.url}/files/{name}-{version}.tgz", "integrity": integrity}
    server.packages[name] = {
        "name": name,
        "dist-tags": {"latest": version},
        "versions": {version: {**manifest, "dist": dist}},
    }


class Registry(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].removeprefix("/")
        if name.startswith("files/"):
            body = self.server.files.get(name.removeprefix("files/"))
        else:
            package = self.server.packages.get(name)
            body = None if package is None else json.dumps(package).encode()
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: Any) -> None:
        pass
