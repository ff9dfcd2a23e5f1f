"""Exec a program that the kernel ends as soon as its parent has exited.

Runs as a script between fork and exec. It imports nothing of the project, to start in milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def main(arguments: list[str]) -> None:
    """Arguments: the death signal, the parent's process ID, and the program with its arguments."""
    death_signal, parent, *program = arguments
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    # The kernel does not report a parent that has already exited.
    if os.getppid() != int(parent):
        sys.exit("the parent ended before its child began")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores SIGPIPE, and exec would inherit that
    os.execvp(program[0], program)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
