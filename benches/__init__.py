"""Benchmarks: `python -m benches` compares libraries in one interleaved run and writes docs/performance.md."""
