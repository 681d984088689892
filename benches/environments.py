"""One virtual environment per library, made on first use in .cache/bench."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "bench"
WORKER = Path(__file__).parent / "worker.py"


class Environment:
    """A running worker process of one library.

    Args:
        name: What the tables call it.
        module: The file of `ops/` it runs.
        python: The interpreter of its environment.
    """

    def __init__(self, name: str, module: str, python: Path) -> None:
        self.name = name
        self.module = module
        self.python = python
        self._process = subprocess.Popen(
            [str(python), str(WORKER), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=CACHE,
        )
        hello = self._receive()
        self.operations: set[str] = set(hello["operations"])
        self.version = hello["python"]

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker of {self.name} ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def measure(self, operation: str, seconds: float) -> dict[str, Any]:
        """Run one operation for about `seconds` and return {"min", "median", "samples"} in ns per unit, or {"error"}."""
        return self._ask({"op": operation, "seconds": seconds})

    def report(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Return what one of its reports has found, or {"error"}."""
        return self._ask({"report": name, "arguments": arguments})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def again(self) -> Environment:
        """Return a fresh worker of the same library."""
        return Environment(self.name, self.module, self.python)

    def close(self) -> None:
        """End the worker."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def install(name: str, interpreter: str, *packages: str) -> Path:
    """Return the interpreter of the environment `name`, made with `packages` if it does not exist yet."""
    home = CACHE / name
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = home / "packages.txt"
    wanted = "\n".join(
        f"{package} of {Path(package).stat().st_mtime_ns}" if package.endswith(".whl") else package
        for package in packages
    )
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([interpreter, "-m", "venv", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def find_python(version: str) -> str | None:
    """Return an interpreter of this version on this machine, or None."""
    candidates = [f"python{version}", *sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))]
    for candidate in candidates:
        path = shutil.which(candidate)
        if path is None:
            continue
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return path
    return None
