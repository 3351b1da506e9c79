"""SASL by the host's libsasl2: who a viewer is, and, where the mechanism has it, what is said after that encrypted.

The library reads /etc/sasl2/qemu.conf, as QEMU has it read; SASL_CONF_PATH names another directory. Without TLS and not
on a unix socket only mechanisms are offered that encrypt (DIGEST-MD5, GSSAPI) and tell no password in clear.

Ref: sasl/sasl.h of Cyrus SASL 2.1; the "QEMU" section on security type 20 of the community's RFB specification.
"""

from __future__ import annotations

import ctypes

from vmrun.errors import BackendError
from vmrun.ui.vnc.stream import ProtocolError

LIBRARY = "libsasl2.so.2"
OK, CONTINUE = 0, 1
USERNAME, SSF, MAX_OUTPUT = 0, 1, 2  # what can be asked for
SSF_EXTERNAL, SECURITY = 100, 101  # what can be told
NO_PLAIN_TEXT, NO_ANONYMOUS = 0x0001, 0x0010
SUCCESS_DATA = 4
WEAKEST, STRONGEST = 56, 100000  # bits of a layer that counts as encryption, as QEMU has it
MOST_BUFFER = 8192  # bytes that are encrypted as one
INSIDE_TLS = 128  # bits that TLS is taken for


class _Properties(ctypes.Structure):
    """sasl_security_properties_t"""

    _fields_ = (
        ("min_ssf", ctypes.c_uint), ("max_ssf", ctypes.c_uint), ("maxbufsize", ctypes.c_uint),
        ("security_flags", ctypes.c_uint), ("names", ctypes.c_void_p), ("values", ctypes.c_void_p),
    )  # fmt: skip


class SaslError(ProtocolError):
    """The library refused, or what came was not made by its layer; the text is the library's."""


_loaded: list[ctypes.CDLL] = []


def library() -> ctypes.CDLL:
    """libsasl2, made ready to serve. BackendError where the host has none."""
    if not _loaded:
        try:
            found = ctypes.CDLL(LIBRARY)
        except OSError:
            raise BackendError(
                f"vnc: SASL needs {LIBRARY}, which this host has not",
                remedy="install Cyrus SASL (Debian: libsasl2-2 and libsasl2-modules)",
            ) from None
        found.sasl_errdetail.restype = ctypes.c_char_p
        if found.sasl_server_init(None, b"qemu") != OK:
            raise BackendError("vnc: SASL cannot start", remedy="look at /etc/sasl2/qemu.conf")
        _loaded.append(found)
    return _loaded[0]


class Sasl:
    """One viewer's conversation. `here` and `there` are "host;port", None of a unix socket; `encrypted`: it is inside
    of TLS already; `private`: nobody can listen to a unix socket. SaslError when the library refuses.
    """

    def __init__(self, here: str | None, there: str | None, encrypted: bool, private: bool) -> None:
        self._sasl = library()
        self._connection = ctypes.c_void_p()
        self.complete = False
        self.wants_layer = not encrypted and not private
        self.strength = 0  # bits of the layer
        self._check(self._sasl.sasl_server_new(
            b"vnc", None, None, here.encode() if here else None, there.encode() if there else None, None, SUCCESS_DATA,
            ctypes.byref(self._connection),
        ))  # fmt: skip
        if encrypted:
            outside = ctypes.c_uint(INSIDE_TLS)
            self._check(self._sasl.sasl_setprop(self._connection, SSF_EXTERNAL, ctypes.byref(outside)))
        wanted = _Properties(maxbufsize=MOST_BUFFER)
        if self.wants_layer:
            wanted.min_ssf, wanted.max_ssf = WEAKEST, STRONGEST
            wanted.security_flags = NO_ANONYMOUS | NO_PLAIN_TEXT
        self._check(self._sasl.sasl_setprop(self._connection, SECURITY, ctypes.byref(wanted)))

    def mechanisms(self) -> bytes:
        """Their names, with commas between. SaslError when there is none."""
        text, size, count = ctypes.c_char_p(), ctypes.c_uint(), ctypes.c_int()
        self._check(self._sasl.sasl_listmech(
            self._connection, None, b"", b",", b"", ctypes.byref(text), ctypes.byref(size), ctypes.byref(count)
        ))  # fmt: skip
        return text.value or b""

    def start(self, mechanism: bytes, data: bytes | None) -> bytes | None:
        """The viewer's choice, and what it says at once; the answer. `complete` is set when it is who it says."""
        return self._step(self._sasl.sasl_server_start, mechanism, data)

    def step(self, data: bytes | None) -> bytes | None:
        return self._step(self._sasl.sasl_server_step, None, data)

    def _step(self, call: ctypes._NamedFuncPointer, mechanism: bytes | None, data: bytes | None) -> bytes | None:
        out, size = ctypes.POINTER(ctypes.c_char)(), ctypes.c_uint()
        words = (mechanism,) if mechanism is not None else ()
        code = call(
            self._connection, *words, data, ctypes.c_uint(len(data or b"")), ctypes.byref(out), ctypes.byref(size)
        )
        if code not in (OK, CONTINUE):
            self._check(code)
        self.complete = code == OK
        answer = bytes(out[: size.value]) if out else None
        if self.complete:
            self._measure()
        return answer

    def _measure(self) -> None:
        """How strong the layer is that was agreed on. SaslError when it is too weak."""
        if not self.wants_layer:
            return
        value = ctypes.POINTER(ctypes.c_uint)()
        self._check(self._sasl.sasl_getprop(self._connection, SSF, ctypes.byref(value)))
        self.strength = int(value[0]) if value else 0
        if self.strength < WEAKEST:
            raise SaslError(f"the mechanism encrypts with {self.strength} bits, {WEAKEST} are wanted")

    @property
    def user(self) -> str:
        """Whom the viewer has shown itself to be."""
        name = ctypes.c_char_p()
        if self._sasl.sasl_getprop(self._connection, USERNAME, ctypes.byref(name)) != OK or not name.value:
            return ""
        return name.value.decode(errors="replace")

    # --- the layer --------------------------------------------------------------------------------------------

    def encode(self, data: bytes) -> bytes:
        """What goes out, in pieces that the viewer can take."""
        value = ctypes.POINTER(ctypes.c_uint)()
        self._check(self._sasl.sasl_getprop(self._connection, MAX_OUTPUT, ctypes.byref(value)))
        most = max(int(value[0]), 1) if value else MOST_BUFFER // 2
        return b"".join(
            self._coded(self._sasl.sasl_encode, data[at : at + most]) for at in range(0, len(data), most)
        )

    def decode(self, data: bytes) -> bytes:
        """What is whole of what came in. SaslError when somebody else had a hand in it."""
        return self._coded(self._sasl.sasl_decode, data)

    def _coded(self, call: ctypes._NamedFuncPointer, data: bytes) -> bytes:
        out, size = ctypes.POINTER(ctypes.c_char)(), ctypes.c_uint()
        self._check(call(self._connection, data, ctypes.c_uint(len(data)), ctypes.byref(out), ctypes.byref(size)))
        return bytes(out[: size.value]) if out else b""

    def _check(self, code: int) -> None:
        if code != OK:
            detail = self._sasl.sasl_errdetail(self._connection) if self._connection else None
            raise SaslError((detail or b"").decode(errors="replace") or f"SASL's error {code}")

    def close(self) -> None:
        if self._connection:
            self._sasl.sasl_dispose(ctypes.byref(self._connection))
            self._connection = ctypes.c_void_p()
