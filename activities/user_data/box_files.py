"""A part of the box script: files in directories that the runtime's user may own."""

from __future__ import annotations

import errno
import os
import pwd
import re
import stat
import time

from activities.user_data.box_base import Box, log

MAX_LINKS = 40  # as in Linux
MAX_FILE_BYTES = 4096  # a token has at most 512 characters

TOKEN = re.compile(r"[\x21-\x7e]{1,512}\Z")  # valid in an HTTP header (RFC 9110, section 5.5)


def give(descriptor: int, account: pwd.struct_passwd | None) -> None:
    """Make the runtime's user the owner of an open file. A path could be swapped meanwhile."""
    if account is not None:
        os.fchown(descriptor, account.pw_uid, account.pw_gid)


def open_directory(path: str, account: pwd.struct_passwd | None, *, create: bool = False) -> int:
    """A descriptor of the directory. With `create`, missing directories are created; the last is the user's.

    As root, follow only links of root in directories of root: the runtime's user may swap all others.
    """
    if account is None:
        if create:
            os.makedirs(path, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    names, links, created = os.path.abspath(path).split("/")[::-1], 0, False  # the next name comes last
    directory = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        while names:
            name = names.pop()
            if not name:
                continue
            target = _link_target(directory, name)
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                names += target.split("/")[::-1]
                name = "/" if target.startswith("/") else "."
            elif create:
                created = _make(directory, name)
            inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = inner
        opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    finally:
        os.close(directory)
    # The user may have put another directory in the place of the new one: root's are not given away.
    if created and os.fstat(opened).st_uid == 0 and not os.listdir(opened):
        give(opened, account)
    return opened


def _make(directory: int, name: str) -> bool:
    """Create a directory; False if there is something with that name."""
    try:
        os.mkdir(name, dir_fd=directory)
    except FileExistsError:
        return False
    return True


def _link_target(directory: int, name: str) -> str | None:
    """The target of a symbolic link; None for anything else. Raises `OSError` for a link that others own."""
    try:
        entry = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(entry.st_mode):
        return None
    around = os.fstat(directory)
    others_write = around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX
    if entry.st_uid or around.st_uid or others_write:
        raise OSError(errno.ELOOP, "a user other than root controls this link in the path", name)
    return os.readlink(name, dir_fd=directory)


class TokenFile:
    """`.auth_token`, and a file with the generation that owns it: a volume may outlive its box.

    The runtime's user may own the directory and put anything there. Nothing is followed, waited for, or used
    by its path.
    """

    NAME = ".auth_token"
    OWNER_NAME = ".auth_token.generation"

    def __init__(self, box: Box) -> None:
        self.path = str(box.configs)
        self.owner = f"{box.workspace_id} {box.generation}\n"
        self.account = box.account

    def read(self) -> str | None:
        """The token of this generation, if there is one. A token of another generation is removed."""
        try:
            directory = open_directory(self.path, self.account)
        except OSError:
            return None
        try:
            if _read(directory, self.OWNER_NAME) == self.owner:
                token = (_read(directory, self.NAME) or "").strip()
                return token if TOKEN.match(token) else None
            for name in (self.NAME, self.OWNER_NAME):
                _remove(directory, name)
        except OSError as error:
            log(f"a token of another generation cannot be removed: {error}")
        finally:
            os.close(directory)
        return None

    def write(self, token: str) -> None:
        """Write both files. After a crash between them, `read` removes the token without an owner."""
        directory = open_directory(self.path, self.account, create=True)
        try:
            self._write(directory, self.NAME, token)
            self._write(directory, self.OWNER_NAME, self.owner)
        finally:
            os.close(directory)

    def _write(self, directory: int, name: str, text: str) -> None:
        temporary = name + ".tmp"
        _remove(directory, temporary)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=directory), "w") as file:
            file.write(text)
            give(file.fileno(), self.account)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except IsADirectoryError:
            _remove(directory, name)
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


def _read(directory: int, name: str) -> str | None:
    """The text of a regular file; None for anything else. O_NONBLOCK: a FIFO would wait for a writer."""
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            return None
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            return os.read(file, MAX_FILE_BYTES).decode()
        finally:
            os.close(file)
    except (OSError, UnicodeDecodeError):
        return None


def _remove(directory: int, name: str) -> None:
    """Remove a file of any type. A directory is moved aside with its content."""
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            aside = f"{name}.{time.time_ns()}"
            os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
            log(f"moved the directory {name} aside, to {aside}")
        else:
            os.unlink(name, dir_fd=directory)
            log(f"removed {name}: another generation or attempt left it")
    except FileNotFoundError:
        return
