"""Runs the core's tests where mistakes in it show: a debug interpreter, AddressSanitizer, coverage-guided fuzzing.

python -m tools.safety debug [pytest arguments]        under a debug CPython (Debian: python3-dbg, or DEBUG_PYTHON=path)
python -m tools.safety on PYTHON [pytest arguments]    under any CPython: another version, free-threaded, debug
python -m tools.safety suite PYTHON [pytest arguments] the whole test suite, real servers included, under any CPython
python -m tools.safety asan [pytest arguments]         with the core under AddressSanitizer (needs gcc's libasan)
python -m tools.safety valgrind [pytest arguments]     without optimisation under valgrind's memcheck (slow)
python -m tools.safety fuzz [seconds]                  pure Rust parts, with libFuzzer (rust/fuzz)
python -m tools.safety fuzz-python [seconds]           decoders through Python, with atheris

All compile the core apart, under target/safety; nothing that is installed changes. They need the stable Rust toolchain
only: RUSTC_BOOTSTRAP=1 lets it instrument what it compiles. See docs/safety.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
WORK: Final = ROOT / "target" / "safety"
TRIPLE: Final = "x86_64-unknown-linux-gnu"
TESTS: Final = [
    "tests/safety",
    "tests/unit/messages",
    "tests/unit/stores/test_memory.py",
    "tests/unit/stores/test_memory_streams.py",
    "tests/unit/buses/test_channel.py",
    "tests/unit/shortcuts",
    "tests/contract/test_memory.py",
    "tests/properties/test_codec_properties.py",
]
UNSUITED: Final = ["tests/typing", "tests/test_install.py", "tests/test_docs.py"]
"""Not for an environment without the tools that check types, build packages and documents."""
FUZZ_TARGETS: Final = ["json", "binary", "texts", "log"]
COVERAGE: Final = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]
ADDRESS: Final = ["-Zsanitizer=address"]
FRAMES: Final = ["-Cforce-frame-pointers=yes"]
PYTEST: Final = ["-q", "-p", "no:cacheprovider", "-m", "not soak", "--timeout", "1800"]
"""Everything takes several times as long as usual."""
ASAN_OPTIONS: Final = "detect_leaks=0:allocator_may_return_null=1:halt_on_error=1"


def run(*command: str | Path, **variables: str) -> None:
    """Run a command with more environment variables; leave with its code if it fails."""
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env={**os.environ, **variables}, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


def compile_core(name: str, python: str, flags: list[str], profile: str = "dev") -> Path:
    """Compile the core for an interpreter and return a folder to import the package from."""
    target = WORK / name
    variables = {"PYO3_PYTHON": python, "CARGO_TARGET_DIR": str(target)}
    command = ["cargo", "build", "--quiet", "--lib", "--features", "extension-module", "--profile", profile]
    built = target / {"dev": "debug"}.get(profile, profile)
    if flags:
        # With a target named, the flags do not reach what the compiler itself runs.
        command += ["--target", TRIPLE, "--config", f"profile.{profile}.opt-level=1"]
        variables |= {"RUSTC_BOOTSTRAP": "1", "RUSTFLAGS": " ".join(flags)}
        built = target / TRIPLE / built.name
    run(*command, **variables)
    package = target / "package"
    shutil.rmtree(package, ignore_errors=True)
    ignored = shutil.ignore_patterns("_core*.so", "__pycache__")
    shutil.copytree(ROOT / "python", package, ignore=ignored)
    suffix = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"], text=True
    ).strip()
    shutil.copy(built / "lib_core.so", package / "lexigram" / "events" / f"_core{suffix}")
    return package


def requirements(whole: bool) -> list[str]:
    """Return what the tests of the core need, as pinned for developers, and what the package itself needs.

    With `whole`, what all tests need that do not check types or build packages.
    """
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = [
        line for line in (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"
    ]
    if whole:
        extras = [line for name, lines in project["optional-dependencies"].items() if name != "all" for line in lines]
        tools = ("mypy", "pyright", "ruff", "maturin", "asyncpg-stubs", "types-")
        return [*project["dependencies"], *extras, *(line for line in pinned if not line.startswith(tools))]
    names = (
        "pytest=",
        "pytest-asyncio",
        "pytest-timeout",
        "hypothesis",
        "opentelemetry",
        "msgspec",
        "PyYAML=",
        "anyio=",
    )
    return [*project["dependencies"], *(line for line in pinned if line.startswith(names))]


def environment(python: str, whole: bool = False) -> tuple[str, str]:
    """Return name and interpreter of an environment of its own below target/safety, with what the tests need."""
    question = "import platform, sysconfig; print(sysconfig.get_config_var('SOABI'), platform.python_version())"
    name = subprocess.check_output([python, "-c", question], text=True).strip().replace(" ", "-")
    place = WORK / f"{name}-{'whole' if whole else 'core'}"
    interpreter = str(place / "bin" / "python")
    if not (place / "complete").exists():
        run(python, "-m", "venv", "--clear", place)
        run(interpreter, "-m", "pip", "install", "--quiet", *requirements(whole))
        (place / "complete").touch()
    return name, interpreter


def on(python: str, arguments: list[str], whole: bool = False) -> None:
    """Run tests under an interpreter: a debug one with a core that checks itself, others with the core that users get."""
    name, interpreter = environment(python, whole)
    debugs = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_config_var('Py_DEBUG'))"])
    profile = "dev" if debugs.strip() == b"1" else "release"
    test(interpreter, compile_core(name, interpreter, [], profile), arguments)


def debug(arguments: list[str]) -> None:
    """Run the tests under a debug interpreter: its assertions, its count of all references, ours in the core."""
    python = os.environ.get("DEBUG_PYTHON") or shutil.which("python3.11-dbg") or shutil.which("python3-dbg")
    if python is None:
        sys.exit("no debug interpreter: install python3-dbg (Debian), or set DEBUG_PYTHON")
    on(python, arguments)


def test(interpreter: str, package: Path, arguments: list[str], **variables: str) -> None:
    run(interpreter, "-m", "pytest", *PYTEST, *(arguments or TESTS), PYTHONPATH=str(package), **variables)


def asan(arguments: list[str]) -> None:
    """Run the tests with a core that checks each access to memory, which then all comes from `malloc`."""
    runtime = subprocess.check_output(["gcc", "-print-file-name=libasan.so"], text=True).strip()
    package = compile_core("asan", sys.executable, [*ADDRESS, *FRAMES])
    test(
        sys.executable, package, arguments, LD_PRELOAD=runtime, ASAN_OPTIONS=ASAN_OPTIONS, PYTHONMALLOC="malloc"
    )  # fmt: skip


def memcheck(arguments: list[str]) -> None:
    """Run the tests under valgrind, with every object in memory of its own; what the interpreter does is not reported."""
    package = compile_core("valgrind", sys.executable, [])
    options = ["--error-exitcode=9", "--leak-check=no", "--undef-value-errors=no", "--trace-children=no", "--quiet"]
    command = ["valgrind", *options, sys.executable, "-m", "pytest", *PYTEST, *(arguments or TESTS)]
    run(*command, PYTHONPATH=str(package), PYTHONMALLOC="malloc")


def fuzz(seconds: int) -> None:
    """Run each target of rust/fuzz for a time; what it finds is kept in target/safety/corpus."""
    flags = ["--cfg fuzzing", *COVERAGE, *ADDRESS, "-Ccodegen-units=1"]
    command = ["cargo", "build", "--quiet", "--release", "--manifest-path", "rust/fuzz/Cargo.toml", "--target", TRIPLE]
    run(*command, CARGO_TARGET_DIR=str(WORK / "fuzz"), RUSTC_BOOTSTRAP="1", RUSTFLAGS=" ".join(flags))
    for target in FUZZ_TARGETS:
        binary = WORK / "fuzz" / TRIPLE / "release" / target
        run(binary, *fuzz_options(target, seconds), corpus(target))


def fuzz_python(seconds: int) -> None:
    """Run tests/safety/fuzz_decoders.py under atheris, coverage of the compiled core included."""
    library = WORK / "atheris"
    if not library.exists():
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", library, "atheris==3.0.0")
    package = compile_core("fuzz-python", sys.executable, [*COVERAGE, *ADDRESS, *FRAMES])
    run(
        sys.executable, "-m", "tests.safety.fuzz_decoders", *fuzz_options("decoders", seconds), corpus("decoders"),
        PYTHONPATH=os.pathsep.join(map(str, (package, library))), ASAN_OPTIONS=ASAN_OPTIONS,
        LD_PRELOAD=str(library / "asan_with_fuzzer.so"), PYTHONMALLOC="malloc",
    )  # fmt: skip


def fuzz_options(target: str, seconds: int) -> list[str]:
    crashes = WORK / "crashes"
    crashes.mkdir(parents=True, exist_ok=True)
    return [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-len_control=20",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-verbosity=0",
        f"-artifact_prefix={crashes / target}-",
    ]


def corpus(target: str) -> Path:
    folder = WORK / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main(arguments: list[str]) -> None:
    if sysconfig.get_platform() != "linux-x86_64":
        sys.exit("written for Linux on x86-64")
    match arguments:
        case ["debug", *rest]:
            debug(rest)
        case ["on", python, *rest]:
            on(python, rest)
        case ["suite", python, *rest]:
            on(python, rest or ["tests", *(f"--ignore={path}" for path in UNSUITED)], whole=True)
        case ["valgrind", *rest]:
            memcheck(rest)
        case ["asan", *rest]:
            asan(rest)
        case ["fuzz", *rest]:
            fuzz(int(*rest or ["60"]))
        case ["fuzz-python", *rest]:
            fuzz_python(int(*rest or ["60"]))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
