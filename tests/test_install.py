"""The wheel beside the real framework, in an environment that has never seen this project."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import asyncio

from lexigram import Application
from lexigram.di.module import Module, module
import lexigram
import lexigram.events
from lexigram.events import Command, EventsModule, command_handler


class Greet(Command):
    name: str


@command_handler(Greet)
async def greet(command: Greet) -> str:
    return f"hello {command.name}"


@module(imports=[EventsModule.configure()])
class AppModule(Module):
    pass


async def main() -> None:
    async with Application.boot(modules=[AppModule]) as app:
        from lexigram.events import CommandBus

        bus = await app.container.resolve(CommandBus)
        print("answer:", await bus.dispatch(Greet(name="ada")))
    print("framework:", lexigram.__file__)
    print("events:", lexigram.events.__file__)


asyncio.run(main())
"""


def run(*command: str | Path, timeout: float = 120, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command outside of this checkout's environment and return its output, or fail with it."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    clean = {k: v for k, v in clean.items() if not k.startswith("LEX_")}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env={**clean, **environment},
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel named by LEXIGRAM_EVENTS_WHEEL, else the newest in dist/ that fits, else (not in CI) a new one."""
    named = os.environ.get("LEXIGRAM_EVENTS_WHEEL")
    if named:
        assert Path(named).is_file(), f"LEXIGRAM_EVENTS_WHEEL names no file: {named}"
        return Path(named)
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    abi = tag + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")
    fitting = sorted((ROOT / "dist").glob(f"*-{tag}-{abi}-*.whl"), key=lambda path: path.stat().st_mtime)
    if fitting:
        return fitting[-1]
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail("there is no wheel in dist/; run `make build` before the tests")
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "maturin", "build", "--quiet", "-m", ROOT / "Cargo.toml", "-o", out, timeout=900)
    return next(out.glob("*.whl"))


def test_the_wheel_adds_files_of_its_own_package_only(wheel: Path) -> None:
    """The framework owns `lexigram/`: a file of ours there would replace one of its own."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    outside = [n for n in names if not n.startswith(("lexigram/events/", "lexigram_events-"))]
    assert outside == []
    assert "lexigram/events/py.typed" in names
    assert "lexigram/events/__init__.pyi" in names
    assert any(name.startswith("lexigram/events/_core.") for name in names)


@pytest.mark.timeout(1000)
def test_the_framework_works_beside_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment `from lexigram import Application` works and boots our module."""
    venv.create(tmp_path / "env", with_pip=True, system_site_packages=False)
    python = (
        tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / ("python.exe" if os.name == "nt" else "python")
    )
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, timeout=300)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    output = run(python, "-W", "error", program, timeout=60, cwd=tmp_path, LEX_LOGGING__LEVEL="WARNING")
    assert "answer: hello ada" in output
    shown = dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)
    environment = (tmp_path / "env").resolve()
    assert Path(shown["framework"]).resolve().is_relative_to(environment)
    assert Path(shown["events"]).resolve().is_relative_to(environment)
    run(python, "-m", "pip", "check")
