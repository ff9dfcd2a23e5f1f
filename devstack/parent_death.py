"""Become another program that the kernel ends as soon as its parent is gone.

Run as a script between fork and exec; it imports nothing of the project, so that it starts in milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def main(arguments: list[str]) -> None:
    """Arguments: the signal to die of, the parent's process ID, and the program with its arguments."""
    death_signal, parent, *program = arguments
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent ended before its child began")  # the kernel tells only of later deaths
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would hand that on
    os.execvp(program[0], program)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
