"""A box with a data volume: it waits for it, mounts it, and creates a file system only on a blank one."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.user_data import box_volume
from tests.box.machine import Machine, wait_until
from tests.box.registry import Registry

SECRET = "ob1.k1.2." + "s" * 43


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(SECRET) as running:
        yield running


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """Substitutes for commands that need root; they record their arguments."""
    directory = tmp_path / "commands"
    directory.mkdir()
    for name in ("mkfs.ext4", "mount"):
        program = directory / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/called\n[ ! -e {tmp_path}/broken ]\n')
        program.chmod(0o755)
    return directory


@pytest.fixture
def machine(tmp_path: Path, registry: Registry, commands: Path) -> Iterator[Machine]:
    machine = Machine(
        tmp_path,
        url=registry.url,
        secret=SECRET,
        data_dir=str(tmp_path / "data"),
        device=tmp_path / "device",
        commands=commands,
    )
    yield machine
    machine.shut_down()


def called(directory: Path) -> list[str]:
    file = directory / "called"
    return file.read_text().splitlines() if file.exists() else []


def test_a_box_does_nothing_before_it_has_its_volume(
    tmp_path: Path, machine: Machine, registry: Registry
) -> None:
    machine.boot()
    wait_until(lambda: machine.logged("waiting for the data volume"), "a box that waits")
    wait_until(lambda: len(registry.states()) >= 2, "two state checks")
    assert registry.registers() == []
    assert machine.runtimes() == []
    (tmp_path / "device").write_bytes(bytes(box_volume.BLANK_BYTES))
    wait_until(machine.running, "a runtime")
    environ = machine.runtimes()[0]["environ"]
    assert isinstance(environ, dict)
    assert environ["DATA_DIR"] == str(tmp_path / "data")


def test_a_blank_volume_gets_a_file_system_and_is_mounted(tmp_path: Path, machine: Machine) -> None:
    device, data = tmp_path / "device", tmp_path / "data"
    device.write_bytes(bytes(box_volume.BLANK_BYTES))
    machine.boot()
    wait_until(machine.running, "a runtime")
    assert called(tmp_path) == [f"mkfs.ext4 -q {device}", f"mount {device} {data}"]


@pytest.mark.parametrize("at", [0, 510, 1024 + 56, 65_600, box_volume.BLANK_BYTES - 1])
def test_a_volume_with_anything_on_it_is_only_mounted(tmp_path: Path, machine: Machine, at: int) -> None:
    device, data = tmp_path / "device", tmp_path / "data"
    content = bytearray(box_volume.BLANK_BYTES)
    content[at] = 0x53
    device.write_bytes(content)
    machine.boot()
    wait_until(machine.running, "a runtime")
    assert called(tmp_path) == [f"mount {device} {data}"]


def test_while_the_volume_cannot_be_mounted_no_runtime_starts(tmp_path: Path, machine: Machine) -> None:
    device = tmp_path / "device"
    device.write_bytes(b"something")
    (tmp_path / "broken").touch()
    machine.boot()
    wait_until(lambda: len(called(tmp_path)) >= 2, "a second try")
    assert machine.runtimes() == []
    (tmp_path / "broken").unlink()
    wait_until(machine.running, "a runtime")


def test_a_directory_may_be_the_volume(tmp_path: Path, machine: Machine) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "device").symlink_to(kept)
    machine.boot()
    wait_until(machine.running, "a runtime")
    environ = machine.runtimes()[0]["environ"]
    assert isinstance(environ, dict)
    assert Path(environ["DATA_DIR"]).resolve() == kept
    assert called(tmp_path) == []


def test_a_superseded_box_that_waits_for_its_volume_ends(machine: Machine, registry: Registry) -> None:
    registry.status = "superseded"
    machine.boot()
    wait_until(machine.off.exists, "the end of a box whose volume is another's by now")


def test_a_nitro_disk_has_the_device_name_of_ec2(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes
    import fcntl

    def ioctl(_disk: object, request: int, command: bytearray) -> int:
        fields = struct.unpack("<BBHIIIQQII6III", bytes(command))
        opcode, address, length, identify = fields[0], fields[7], fields[9], fields[10]
        assert (request, opcode, length, identify) == (0xC0484E41, 6, 4096, 1)
        name = b"/dev/sdf".ljust(32)
        ctypes.memmove(address + 3072, name, len(name))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)  # this machine has no such disk
    assert box_volume.nvme_name(os.devnull) == box_volume.DEVICE
