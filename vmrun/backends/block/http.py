"""Images on web servers, read by ranges: http and https, through urllib3. What was fetched last is kept.

The server's word is not trusted: an answer is exactly the range that was asked for, or an error, and no more than that
is read of it. As QEMU's driver, it goes by a proxy where `http_proxy`, `https_proxy` and `no_proxy` say so.
"""

from __future__ import annotations

import errno
import os
import threading
from time import monotonic

from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.sizes import digits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from vmrun.backends.block.node import Node

AHEAD = 256 << 10  # bytes that are fetched at a time
MOST_AHEAD = 16 << 20
KEPT = 4 << 20  # bytes of the pieces that are kept, at least two of them
LONGEST = 10_000  # seconds of a timeout
SLOWLY = 12  # times the timeout is all that a piece may take, as long as something comes


class Pages:
    """One address. `given`: the options of the node, `secrets`: name of an option → the text of its secret."""

    def __init__(self, url: str, given: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
        """ImageError."""
        try:
            import urllib3
        except ImportError:
            raise ImageError(
                f"Could not open '{url}': Unknown protocol '{url.split(':')[0]}'",
                "install the extra `http`: pip install 'vmrun[http]'",
            ) from None
        self.url, self.lock = url, threading.Lock()
        self.kept: dict[int, bytes] = {}
        self.ahead = min(int(given.get("readahead", AHEAD)) or AHEAD, MOST_AHEAD)
        self.timeout = _timeout(given)
        self.faults = (urllib3.exceptions.HTTPError, OSError, ValueError)  # some of a name's faults are ValueErrors
        cookie = secrets.get("cookie-secret") or str(given.get("cookie") or "")
        headers = {"User-Agent": "vmrun", "Accept-Encoding": "identity", **({"Cookie": cookie} if cookie else {})}
        try:
            headers.update(_credentials(url, given, secrets))
            self.pool: Any = _pool(url, given, secrets, timeout=self.timeout, headers=headers)
            answer = self.pool.request("HEAD", url)
        except self.faults as error:
            raise ImageError(f"CURL: Error opening file: {_reason(error)}") from None
        if answer.status >= 400:
            raise ImageError(f"CURL: Error opening file: The requested URL returned error: {answer.status}")
        if answer.headers.get("accept-ranges", "").lower() != "bytes":
            raise ImageError("CURL: Error opening file: Server does not support 'range' (byte ranges).")
        length = digits(answer.headers.get("content-length", ""))
        if length is None or length >= 1 << 63:
            raise ImageError("CURL: Error opening file: Server didn't report file size.")
        self.size = length

    def read(self, offset: int, count: int) -> bytes:
        parts, end = [], offset + count
        while offset < end:
            piece, within = divmod(offset, self.ahead)
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
        first, last = number * self.ahead, min((number + 1) * self.ahead, self.size) - 1
        try:
            data = self._fetched(first, last)
        except self.faults:
            raise OSError(errno.EIO, "the server does not answer") from None
        if len(data) != last - first + 1:
            raise OSError(errno.EIO, "the server gave something else")
        with self.lock:
            self.kept[number] = data
            while len(self.kept) > max(2, KEPT // self.ahead):
                self.kept.pop(next(iter(self.kept)))
        return data

    def _fetched(self, first: int, last: int) -> bytes:
        """What came of a range, nothing if it is another one."""
        headers = {**self.pool.headers, "Range": f"bytes={first}-{last}"}
        end = monotonic() + (self.timeout or 0) * SLOWLY
        answer = self.pool.request("GET", self.url, headers=headers, preload_content=False, decode_content=False)
        whole = False
        try:
            told = answer.headers.get("content-range", "").replace(" ", "").lower()
            if answer.status != 206 or told and not told.startswith(f"bytes{first}-{last}/"):
                return b""
            parts = answer.headers.get("content-type", "").lower().startswith("multipart/")
            if parts or answer.headers.get("content-encoding", "identity") != "identity":
                return b""
            found, wanted = bytearray(), last - first + 1
            while wanted and (part := answer.read(min(wanted, 1 << 16))):
                found += part
                wanted -= len(part)
                if self.timeout and monotonic() > end:
                    return b""
            whole = not wanted
            return bytes(found)
        finally:
            if whole:
                answer.release_conn()
            else:
                answer.close()  # what else it has to say nobody reads

    def end(self) -> None:
        self.pool.clear()


def _timeout(given: Mapping[str, Any]) -> float | None:
    """Seconds; None: for ever. ImageError."""
    try:
        found = int(str(given.get("timeout", 5)), 0)
    except ValueError:
        raise ImageError("Parameter 'timeout' expects a number") from None
    if not 0 <= found <= LONGEST:
        raise ImageError("timeout parameter is too large or negative")
    return found or None


def _credentials(url: str, given: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, str]:
    """The header that says who we are: options, or a name in the address."""
    from urllib3 import make_headers
    from urllib3.util import parse_url

    name = given.get("username")
    if name is not None:
        return dict(make_headers(basic_auth=f"{name}:{secrets.get('password-secret', '')}"))
    auth = parse_url(url).auth
    return dict(make_headers(basic_auth=_plain(auth))) if auth else {}


def _plain(auth: str) -> str:
    from urllib.parse import unquote

    return unquote(auth)


def _pool(url: str, given: Mapping[str, Any], secrets: Mapping[str, str], **more: Any) -> Any:
    """Who connects, straight or by a proxy."""
    import urllib3
    from urllib3.util import parse_url

    verify = given.get("sslverify", True) not in (False, "off")
    if not verify:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # who says it knows it
    more = {
        **more, "retries": urllib3.Retry(3, redirect=5), "maxsize": 4,
        "cert_reqs": "CERT_REQUIRED" if verify else "CERT_NONE",
    }  # fmt: skip
    proxy = _proxy(parse_url(url).host or "", url.split(":")[0])
    if not proxy:
        return urllib3.PoolManager(**more)
    auth = parse_url(proxy).auth
    if given.get("proxy-username") is not None:
        auth = f"{given['proxy-username']}:{secrets.get('proxy-password-secret', '')}"
    headers = urllib3.make_headers(proxy_basic_auth=_plain(auth)) if auth else None
    return urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}", proxy_headers=headers, **more)


def _proxy(host: str, scheme: str) -> str:
    """Of the environment, in lower case as curl has it for http, in either for the rest; empty: none."""
    names = ["https_proxy", "HTTPS_PROXY"] if scheme == "https" else ["http_proxy"]  # HTTP_PROXY is a CGI's header
    found = _of_environment(*names, "all_proxy", "ALL_PROXY")
    without = _of_environment("no_proxy", "NO_PROXY")
    for name in without.replace(",", " ").split():
        bare = name.lstrip(".").lower()
        if name == "*" or host.lower() == bare or host.lower().endswith(f".{bare}"):
            return ""
    return found


def _of_environment(*names: str) -> str:
    return next((text for name in names if (text := os.environ.get(name))), "")


def _reason(error: BaseException | None) -> str:
    """What the host said, in what urllib3 wraps around it."""
    told = ""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        inner = getattr(error, "reason", None)
        error, told = (inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__), str(error)
    return told.rpartition(": ")[2]


def open_http(url: str, options: Mapping[str, Any], readonly: bool, objects: Mapping[str, Any]) -> Node:
    """`objects`: the host's, for secrets. ImageError in QEMU's words."""
    from vmrun.backends.block.foreign import ForeignNode

    driver = str(options.get("driver") or url.split(":")[0])
    if not url.startswith(f"{driver}://"):
        raise ImageError(f"{driver} curl driver cannot handle the URL '{url}' (does not start with '{driver}://')")
    if not readonly:
        raise ImageError("curl driver does not support writes", "say `readonly: true`")
    if int(options.get("readahead", AHEAD)) % 512:
        raise ImageError(f"HTTP_READAHEAD_SIZE {options['readahead']} is not a multiple of 512")
    secrets = {}
    for name in ("password-secret", "proxy-password-secret", "cookie-secret"):
        if options.get(name) is not None:
            made: Any = objects.get(str(options[name]))
            if not hasattr(made, "value"):
                raise ImageError(f"No secret with id '{options[name]}'")
            secrets[name] = bytes(made.value).decode("latin-1")
    pages = Pages(url, options, secrets)
    node: Node = ForeignNode(driver, url, pages.size, pages)
    return node
