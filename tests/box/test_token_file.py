"""The token file, in a directory where the runtime's user may put anything."""

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.box.machine import Machine, wait_until
from tests.box.registry import Registry

SECRET = "ob1.k1.2." + "s" * 43
USER = "nobody"
RUNTIME = 'sh -c \'cp "$CONFIGS_DIR/.auth_token" "$CONFIGS_DIR/seen"; exec sleep 600\''
ROUNDS = 10_000
"""A script that works by path loses the race within a few hundred."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the script changes users only as root")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(SECRET) as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, registry: Registry) -> Iterator[Machine]:
    machine = Machine(tmp_path, url=registry.url, secret=SECRET)
    yield machine
    machine.shut_down()


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the runtime's user, which it can reach."""
    account = pwd.getpwnam(USER)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        home = Path(directory) / "home"
        home.mkdir()
        os.chown(home, account.pw_uid, account.pw_gid)
        yield home


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of root."""
    victim = tmp_path / "victim"
    victim.mkdir()
    return victim


@pytest.fixture
def own_user(tmp_path: Path, registry: Registry, home: Path) -> Iterator[Machine]:
    """A machine whose runtime has a user and a home of its own."""
    machine = Machine(
        tmp_path, url=registry.url, secret=SECRET, configs=home / "sub/configs", user=USER, command=RUNTIME
    )
    yield machine
    machine.shut_down()


def put(kind: str, path: Path, other: Path) -> None:
    """Put an odd thing at the path."""
    path.parent.mkdir(exist_ok=True)
    if kind == "directory":
        path.mkdir()
        (path / "content").touch()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(other)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 1 << 40)


@pytest.mark.parametrize("owner", ["ws-1 2\n", "ws-1 1\n"])
@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "device", "sparse"])
def test_a_box_with_an_odd_token_file_gets_its_token(
    tmp_path: Path, machine: Machine, registry: Registry, kind: str, owner: str
) -> None:
    other = tmp_path / "other"
    other.write_text("of somebody else")
    put(kind, machine.configs / ".auth_token", other)
    (machine.configs / ".auth_token.generation").write_text(owner)
    machine.boot()
    wait_until(machine.running, "a runtime")
    assert machine.runtimes()[-1]["token"] == registry.token
    token = machine.configs / ".auth_token"
    assert token.is_file()
    assert not token.is_symlink()
    assert token.stat().st_mode & 0o777 == 0o600
    assert other.read_text() == "of somebody else"
    assert registry.registers()[0].bearer == SECRET
    aside = list(machine.configs.glob(".auth_token.*/content"))
    assert len(aside) == (kind == "directory")


@pytest.mark.parametrize("name", [".auth_token.generation", ".auth_token.tmp", ".auth_token.generation.tmp"])
@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "device", "sparse"])
def test_odd_files_beside_the_token_are_replaced(
    tmp_path: Path, machine: Machine, registry: Registry, kind: str, name: str
) -> None:
    other = tmp_path / "other"
    other.write_text("ws-1 2\n")
    put(kind, machine.configs / name, other)
    (machine.configs / ".auth_token").write_text("inherited")
    machine.boot()
    wait_until(machine.running, "a runtime")
    assert machine.token == registry.token
    assert (machine.configs / ".auth_token.generation").read_text() == "ws-1 2\n"
    assert registry.registers()[0].bearer == SECRET
    assert other.read_text() == "ws-1 2\n"


def test_a_token_file_that_becomes_a_fifo_is_replaced(machine: Machine, registry: Registry) -> None:
    machine.boot()
    wait_until(machine.running, "a runtime")
    (machine.configs / ".auth_token").unlink()
    os.mkfifo(machine.configs / ".auth_token")
    wait_until(lambda: len(machine.runtimes()) == 2, "a second runtime")
    assert machine.token == registry.token


@as_root
def test_the_runtimes_user_gets_its_directory_and_token(own_user: Machine, registry: Registry) -> None:
    own_user.boot()
    seen = own_user.configs / "seen"
    wait_until(lambda: seen.exists() and seen.read_text() == registry.token, "a runtime that read the token")
    account = pwd.getpwnam(USER)
    for path in (own_user.configs, own_user.configs / ".auth_token"):
        assert (path.stat().st_uid, path.stat().st_gid) == (account.pw_uid, account.pw_gid)
    assert own_user.configs.parent.stat().st_uid == 0


@as_root
@pytest.mark.parametrize("part", ["sub", "sub/configs"])
def test_a_link_of_the_runtimes_user_is_not_followed(
    own_user: Machine, registry: Registry, home: Path, victim: Path, part: str
) -> None:
    link, account = home / part, pwd.getpwnam(USER)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(victim)
    os.chown(link, account.pw_uid, account.pw_gid, follow_symlinks=False)
    own_user.boot()
    wait_until(lambda: own_user.logged("controls this link in the path"), "a refused link")
    assert victim.stat().st_uid == 0
    assert list(victim.iterdir()) == []
    link.unlink()
    wait_until(lambda: own_user.token is not None, "a token without the link")


@as_root
def test_a_link_of_root_is_followed(own_user: Machine, registry: Registry, home: Path, victim: Path) -> None:
    """As with `/var/run`: its directory and the link belong to root."""
    (home.parent / "sub").symlink_to(victim)
    (home / "sub").mkdir()
    os.chown(home, 0, 0)
    (home / "sub" / "configs").symlink_to("../../sub/configs")
    own_user.boot()
    wait_until(lambda: own_user.token is not None, "a token")
    assert (victim / "configs").stat().st_uid == pwd.getpwnam(USER).pw_uid
    assert victim.stat().st_uid == 0


@as_root
def test_a_user_who_swaps_the_directory_gets_nothing_of_root(home: Path, victim: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.box.swapping", str(home), str(victim), USER, str(ROUNDS)],
        stderr=subprocess.DEVNULL,
        check=True,
    )
    assert victim.stat().st_uid == 0
    assert list(victim.iterdir()) == []
    assert (home / "configs" / ".auth_token").read_text() == "token"
