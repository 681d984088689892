"""Valgrind, which counts instructions for the benchmarks and tests; installed from Debian's package where it is missing."""

from __future__ import annotations

import os
import sys

from tools.servers.base import ServiceError, apt_install, find_program

PROGRAMS = ("valgrind", "callgrind_annotate")


def install() -> None:
    """Make sure that valgrind's programs are on PATH; needs root on Debian where they are not.

    Raises:
        ServiceError: They are missing and cannot be installed here; the message says why.
    """
    if all(find_program(program) for program in PROGRAMS):
        return
    if sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"):
        raise ServiceError(f"valgrind is not installed, and cannot be on {sys.platform}")
    apt_install(["valgrind"])
