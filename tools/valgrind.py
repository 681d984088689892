"""Valgrind, which counts instructions for the benchmarks and tests; installed from Debian's package where it is missing."""

from __future__ import annotations

import os
import sys

from tools.servers.base import ServiceError, apt_install, find_program


def install() -> None:
    """Make sure that valgrind is on PATH; needs root on Debian where it is not.

    Raises:
        ServiceError: It is missing and cannot be installed here; the message says why.
    """
    if find_program("valgrind"):
        return
    if sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"):
        raise ServiceError(f"valgrind is not installed, and cannot be on {sys.platform}")
    apt_install(["valgrind"])
