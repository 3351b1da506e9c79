"""-blockdev graphs and -drive's nodes: what a machine file says of them, or that it cannot; no silence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.qemuopts import LineError

FILE = {"driver": "file", "filename": "/a.img"}


def imported(*words: str) -> tuple[dict[str, Any], list[str]]:
    parsed = parse_command_line([*words, "-device", "virtio-blk-pci,drive=n"])
    drives: dict[str, Any] = parsed.machine()["drives"]
    return drives["n"], [problem.message for problem in parsed.warnings]


def of_node(**options: Any) -> tuple[dict[str, Any], list[str]]:
    return imported("-blockdev", json.dumps({"node-name": "n", **options}))


def graph(spec: dict[str, Any]) -> Any:
    assert spec["file"].startswith("json:")
    assert spec["format"] == "raw"
    return json.loads(spec["file"][5:])


@pytest.mark.parametrize("driver", ["raw", "qcow2"])
def test_a_format_over_a_file_is_a_plain_drive(driver: str) -> None:
    assert of_node(driver=driver, file=FILE) == ({"format": driver, "file": "/a.img"}, [])


@pytest.mark.parametrize(
    "options",
    [
        {"driver": "raw", "file": FILE, "offset": 512, "size": 1024},
        {"driver": "null-co", "size": 4096, "read-zeroes": True},
        {"driver": "http", "url": "http://h/x"},
        {"driver": "vvfat", "dir": "/d", "floppy": True},
        {"driver": "blkdebug", "image": FILE},
        {"driver": "raw", "file": {"driver": "qcow2", "file": FILE}},
    ],
)
def test_any_other_graph_is_kept_whole(options: dict[str, Any]) -> None:
    spec, warnings = of_node(**options)
    assert graph(spec) == options
    assert warnings == []


def test_a_cache_that_is_past_the_host_s_and_without_flushes_is_both() -> None:
    """No word of a drive's says that: it became `writeback`, neither of them."""
    both = {"direct": True, "no-flush": True}
    spec, warnings = of_node(driver="qcow2", cache=both, file={**FILE, "cache": both, "aio": "native"})
    assert graph(spec)["file"] == {**FILE, "cache": both, "aio": "native"}
    assert (spec["cache"], spec.get("aio"), warnings) == ("unsafe", None, [])


def test_nodes_by_name_are_put_into_each_other() -> None:
    spec, _ = imported(
        "-blockdev", "driver=file,filename=/a.img,node-name=f", "-blockdev", "driver=raw,file=f,node-name=n,offset=512"
    )
    assert graph(spec) == {"driver": "raw", "offset": "512", "file": FILE}


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ({"type": "inet", "host": "h", "port": "10809"}, "nbd:h:10809:exportname=e"),
        ({"type": "unix", "path": "/s"}, "nbd:unix:/s:exportname=e"),
    ],
)
def test_a_network_block_device_is_an_address(server: dict[str, str], address: str) -> None:
    assert of_node(driver="nbd", server=server, export="e") == ({"file": address, "format": "raw"}, [])
    below = {"driver": "nbd", "server": server, "export": "e"}
    assert of_node(driver="qcow2", file=below) == ({"file": address, "format": "qcow2"}, [])


@pytest.mark.parametrize("driver", ["qed", "luks", "rbd", "quorum", "ssh"])
def test_a_driver_that_is_not_there_is_named(driver: str) -> None:
    _, warnings = of_node(driver=driver, file=FILE)
    assert [driver in warning and "no equal" in warning for warning in warnings] == [True]


def test_a_drive_may_be_such_a_node_too() -> None:
    assert imported("-drive", "if=none,id=n,file.driver=nbd,file.host=h,file.port=1,format=raw")[0] == {
        "file": "nbd:h:1", "format": "raw"
    }  # fmt: skip
    spec, _ = imported("-drive", "if=none,id=n,driver=null-co,size=1M,read-zeroes=on")
    assert graph(spec) == {"driver": "null-co", "size": 1 << 20, "read-zeroes": "on"}
    spec, _ = imported("-drive", "if=none,id=n,file=/a.img,format=raw,offset=1k")
    assert graph(spec) == {"driver": "raw", "offset": 1024, "file": FILE}
    _, warnings = imported("-drive", "if=none,id=n,file.driver=rbd,file.pool=p")
    assert "'file.driver=rbd' has no equal" in warnings[0]


@pytest.mark.parametrize("format", [",format=raw", ",format=qcow2", ""])
def test_what_qemu_does_by_itself_may_be_said_of_a_drive(format: str) -> None:
    for value in ("on", "off"):
        drive, warnings = imported("-drive", f"if=none,id=n,file=/a.img{format},auto-read-only={value},force-share=off")
        assert drive.keys() <= {"file", "format"} and warnings == []


def test_an_image_that_others_write_is_read_alone_and_that_is_said() -> None:
    drive, warnings = imported("-drive", "if=none,id=n,file=/a.img,format=raw,read-only=on,force-share=on")
    assert drive["readonly"] is True and "force-share" not in drive and "'force-share'" in warnings[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("auto-read-only=maybe", "Parameter 'auto-read-only' expects 'on' or 'off'"),
        ("force-share=on", "force-share=on can only be used with read-only images"),
        ("force-share=on,read-only=off", "force-share=on can only be used with read-only images"),
    ],
)
def test_flags_of_a_drive_are_refused_as_qemu_does(given: str, said: str) -> None:
    with pytest.raises(LineError, match=said):
        imported("-drive", f"if=none,id=n,file=/a.img,format=raw,{given}")
