# Sourced by make: lets `cargo test` link and load the interpreter that the virtual environment is built on.
# Usage: source tools/rust-env.sh path/to/python
export PYO3_PYTHON="$1"
_libdir=$("$1" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR") or "")')
export LD_LIBRARY_PATH="${_libdir}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export DYLD_LIBRARY_PATH="${_libdir}${DYLD_LIBRARY_PATH:+:$DYLD_LIBRARY_PATH}"
