"""Keys and certificates that tests have openssl make, named as QEMU names the files of its credentials."""

from __future__ import annotations

import pathlib
import subprocess

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(*words: object, cwd: pathlib.Path | None = None) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=cwd)


def make_credentials(directory: pathlib.Path, client: str = "client") -> None:
    """An authority, a server on this host and a client of that name, as QEMU's manual makes them."""
    authority = ["-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-subj", "/CN=authority", "-days", "9"]
    openssl("req", "-x509", *CURVE, *authority, cwd=directory)
    (directory / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    signed = ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", "names", "-days", "9"]
    for side, name in (("server", "localhost"), ("client", client)):
        openssl("req", *CURVE, "-keyout", f"{side}-key.pem", "-out", "request", "-subj", f"/CN={name}", cwd=directory)
        openssl("x509", "-req", "-in", "request", *signed, "-out", f"{side}-cert.pem", cwd=directory)
