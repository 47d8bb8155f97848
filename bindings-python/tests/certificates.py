"""Certificates for tests, made by the program ``openssl``."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """PEM files."""

    cert: Path
    key: Path


def authority(directory: Path) -> Certificate:
    """A certificate that signs others."""
    made = Certificate(directory / "ca.pem", directory / "ca.key")
    _openssl(
        "req", "-x509", *_new_key(made), "-days", "2", "-subj", "/CN=test authority", "-addext", "keyUsage=keyCertSign"
    )
    return made


def signed(directory: Path, name: str, by: Certificate) -> Certificate:
    """A certificate for 127.0.0.1 and localhost."""
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    extensions = ("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext", "basicConstraints=CA:FALSE")
    signer = ("-CA", str(by.cert), "-CAkey", str(by.key))
    _openssl("req", "-x509", *_new_key(made), *signer, "-days", "2", "-subj", f"/CN={name}", *extensions)
    return made


def _new_key(made: Certificate) -> list[str]:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    return [*key, "-keyout", str(made.key), "-out", str(made.cert)]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
