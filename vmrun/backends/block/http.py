"""Images on web servers, read by ranges: http and https, through urllib3. What was fetched last is kept."""

from __future__ import annotations

import errno
import threading

from vmrun.backends.block.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.node import Node

AHEAD = 256 << 10
KEPT = 16  # pieces of AHEAD bytes


class Pages:
    """One address."""

    def __init__(self, url: str, *, verify: bool = True, timeout: float = 5.0, cookie: str = "") -> None:
        try:
            import urllib3
        except ImportError:
            raise ImageError(
                f"Could not open '{url}': Unknown protocol '{url.split(':')[0]}'",
                "install the extra `http`: pip install 'vmrun[http]'",
            ) from None
        self.url, self.lock = url, threading.Lock()
        self.kept: dict[int, bytes] = {}
        headers = {"User-Agent": "vmrun", "Accept-Encoding": "identity", **({"Cookie": cookie} if cookie else {})}
        self.pool: Any = urllib3.PoolManager(
            timeout=timeout, retries=urllib3.Retry(3, redirect=5), headers=headers, maxsize=4,
            cert_reqs="CERT_REQUIRED" if verify else "CERT_NONE",
        )  # fmt: skip
        self.faults = (urllib3.exceptions.HTTPError,)
        try:
            answer = self.pool.request("HEAD", url)
        except self.faults as error:
            raise ImageError(f"CURL: Error opening file: {_reason(error)}") from None
        if answer.status >= 400:
            raise ImageError(f"CURL: Error opening file: The requested URL returned error: {answer.status}")
        if answer.headers.get("accept-ranges", "").lower() != "bytes":
            raise ImageError("CURL: Error opening file: Server does not support 'range' (byte ranges).")
        length = answer.headers.get("content-length", "")
        if not length.isdigit():
            raise ImageError("CURL: Error opening file: Server didn't report file size.")
        self.size = int(length)

    def read(self, offset: int, count: int) -> bytes:
        parts, end = [], offset + count
        while offset < end:
            piece, within = divmod(offset, AHEAD)
            data = self._piece(piece)
            taken = data[within : within + end - offset]
            if not taken:
                raise OSError(errno.EIO, "the server's file is shorter than it was")
            parts.append(taken)
            offset += len(taken)
        return b"".join(parts)

    def _piece(self, number: int) -> bytes:
        with self.lock:
            found = self.kept.pop(number, None)
            if found is not None:
                self.kept[number] = found
                return found
        first, last = number * AHEAD, min((number + 1) * AHEAD, self.size) - 1
        try:
            answer = self.pool.request("GET", self.url, headers={**self.pool.headers, "Range": f"bytes={first}-{last}"})
        except self.faults:
            raise OSError(errno.EIO, "the server does not answer") from None
        if answer.status != 206 or len(answer.data) != last - first + 1:
            raise OSError(errno.EIO, "the server gave something else")
        data = bytes(answer.data)
        with self.lock:
            self.kept[number] = data
            while len(self.kept) > KEPT:
                self.kept.pop(next(iter(self.kept)))
        return data

    def end(self) -> None:
        self.pool.clear()


def _reason(error: BaseException | None) -> str:
    """What the host said, in what urllib3 wraps around it."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        inner = getattr(error, "reason", None)
        error, told = (inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__), str(error)
    return told.rpartition(": ")[2]


def open_http(url: str, options: dict[str, Any], readonly: bool) -> Node:
    """ImageError in QEMU's words."""
    from vmrun.backends.block.foreign import ForeignNode

    if not readonly:
        raise ImageError("curl block device does not support writes")
    verify = options.get("sslverify", options.get("file.sslverify", True)) not in (False, "off")
    try:
        timeout = float(options.get("timeout", 5))
    except (TypeError, ValueError):
        raise ImageError("Parameter 'timeout' expects a number") from None
    pages = Pages(url, verify=verify, timeout=timeout, cookie=str(options.get("cookie") or ""))
    node: Node = ForeignNode(url.split(":")[0], url, pages.size, pages)
    return node
