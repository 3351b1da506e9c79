"""Who may come in by a certificate: the same rules and the same viewers at QEMU's VNC server and at vmrun's."""

from __future__ import annotations

import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.certificates import CURVE, openssl
from tests.peers.oracle import QEMU, needs_qemu
from tests.ports import listens_at
from vmrun.monitor.client import QmpClient

pytestmark = [
    pytest.mark.peer, needs_qemu,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]  # fmt: skip

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIDES = {"theirs": [str(QEMU)], "ours": [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]}
PEOPLE = {  # who has a certificate of the authority: its subject, and the name that it gives
    "anna": ("/C=GB/O=Home, Sweet/CN=anna", "C=GB,O=Home\\, Sweet,CN=anna"),
    "bert": ("/C=GB/L=Ayr/O=Home/OU=cellar/CN=bert", "C=GB,L=Ayr,O=Home,OU=cellar,CN=bert"),
    "carl": ("/CN=carl/emailAddress=c@home", "CN=carl,EMAIL=c@home"),
}
RULES = [
    {"qom-type": "authz-simple", "identity": PEOPLE["anna"][1]},
    {"qom-type": "authz-simple", "identity": "CN=anna"},
    {"qom-type": "authz-list", "policy": "allow", "rules": [{"match": PEOPLE["bert"][1], "policy": "deny"}]},
    {"qom-type": "authz-list", "rules": [
        {"match": "CN=carl*", "policy": "deny", "format": "glob"},
        {"match": "C=GB,*", "policy": "allow", "format": "glob"},
        {"match": "*anna*", "policy": "deny", "format": "exact"},
    ]},
    {"qom-type": "authz-list", "rules": [{"match": "CN=carl,EMAIL=c@home", "policy": "allow", "format": "exact"}]},
    {"qom-type": "authz-list", "policy": "deny"},
    {"qom-type": "authz-list", "rules": [{"match": "*CN=[ab]*", "policy": "allow", "format": "glob"}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An authority, a server's certificate and those of some people."""
    place = tmp_path_factory.mktemp("keys")

    def run(*words: str) -> None:
        openssl(*words, cwd=place)

    run("req", "-x509", *CURVE, "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-days", "2")
    for kind in ("server", "client"):
        lines = f"extendedKeyUsage={kind}Auth", "keyUsage=digitalSignature", "basicConstraints=CA:false"
        (place / f"{kind}.ext").write_text("\n".join(lines) + "\n")
    for name, subject, kind in (("server", "/CN=lab", "server"), *((n, s, "client") for n, (s, _) in PEOPLE.items())):
        run("req", *CURVE, "-subj", subject, "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
        authority = ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", f"{kind}.ext"]
        run("x509", "-req", "-in", f"{name}.csr", *authority, "-days", "2", "-out", f"{name}-cert.pem")
    return place


class Lab:
    """The program with a server of each of RULES, and one whose rules are in a file."""

    def __init__(self, side: str, keys: pathlib.Path, directory: pathlib.Path) -> None:
        self.side, self.directory, self.keys = side, directory, keys
        self.file = directory / "rules.json"
        self.write({"policy": "deny"})
        rules = [*RULES]
        if side == "ours":  # QEMU 7.2's own refuses either of the names that it has for it
            rules.append({"qom-type": "authz-list-file", "filename": str(self.file)})
        words = [
            *SIDES[side], "-M", "pc-i440fx-7.2", "-accel", "tcg", "-m", "16", "-S", "-nodefaults", "-display", "none",
            "-qmp", f"unix:{directory}/qmp,server=on,wait=off",
            "-object", f"tls-creds-x509,id=tls,dir={keys},endpoint=server,verify-peer=on",
        ]  # fmt: skip
        for n, rule in enumerate(rules):
            words += ["-object", json.dumps({"id": f"rule{n}", **rule})]
            words += ["-vnc", f"unix:{directory}/{n},id=vnc{n},tls-creds=tls,tls-authz=rule{n}"]
        self.log = (directory / "log").open("w+")
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=self.log)
        try:
            end = time.monotonic() + 60
            while not listens_at(directory / str(len(rules) - 1)):
                assert self.process.poll() is None and time.monotonic() < end, (directory / "log").read_text()
                time.sleep(0.05)
            self.monitor = QmpClient(str(directory / "qmp"))
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def write(self, rules: object) -> None:
        """As an editor does it: all at once."""
        (self.directory / "new").write_text(rules if isinstance(rules, str) else json.dumps(rules))
        (self.directory / "new").rename(self.file)

    def enter(self, number: int, who: str) -> bool:
        """Whether a viewer with that certificate gets as far as the screen."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.keys / "ca-cert.pem")
        context.load_cert_chain(self.keys / f"{who}-cert.pem", self.keys / f"{who}-key.pem")
        with socket.socket(socket.AF_UNIX) as plain:
            plain.settimeout(30)
            plain.connect(str(self.directory / str(number)))
            for size, answer in ((12, b"RFB 003.008\n"), (2, b"\x13"), (2, b"\0\2"), (6, b"\0\0\1\4"), (1, b"")):
                found = b""
                while len(found) < size:
                    found += plain.recv(size - len(found))
                plain.sendall(answer)
            try:
                with context.wrap_socket(plain) as inside:
                    if inside.recv(4) != bytes(4):
                        return False
                    inside.sendall(b"\1")  # ClientInit
                    return len(inside.recv(24)) > 0
            except OSError:
                return False

    def close(self) -> None:
        self.monitor.__exit__()
        self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture(scope="module", params=list(SIDES))
def lab(request: pytest.FixtureRequest, keys: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    found = Lab(request.param, keys, tmp_path_factory.mktemp("lab"))
    yield found
    found.close()


EXPECTED = ["anna", "", "anna carl", "anna bert", "carl", "", ""]


@pytest.mark.parametrize("number", range(len(RULES)))
def test_rules_decide_who_comes_in(lab: Lab, number: int) -> None:
    assert " ".join(who for who in PEOPLE if lab.enter(number, who)) == EXPECTED[number]


def test_a_file_of_rules_is_read_anew(lab: Lab) -> None:
    if lab.side == "theirs":
        return
    number = len(RULES)
    assert not lab.enter(number, "anna")
    for rules, who in (
        ({"policy": "deny", "rules": [{"match": PEOPLE["anna"][1], "policy": "allow"}]}, "anna"),
        ({"policy": "allow", "rules": [{"match": "*CN=anna", "policy": "deny", "format": "glob"}]}, "bert carl"),
        ("no JSON at all", ""),
        ({"policy": "allow"}, "anna bert carl"),
    ):
        lab.write(rules)
        end = time.monotonic() + 20
        while (found := " ".join(name for name in PEOPLE if lab.enter(number, name))) != who:
            assert time.monotonic() < end, (found, who)


@pytest.mark.parametrize("who", list(PEOPLE))
def test_the_monitor_tells_the_name(lab: Lab, who: str) -> None:
    number = {"anna": 0, "bert": 3, "carl": 4}[who]
    assert lab.enter(number, who)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        lab.monitor.execute("query-status")
        told = [event["data"] for event in lab.monitor.events if event["event"] == "VNC_DISCONNECTED"]
        if any(data["client"].get("x509_dname") == PEOPLE[who][1] for data in told):
            return
        time.sleep(0.05)
    raise AssertionError(told)
