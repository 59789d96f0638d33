"""Benchmarks: `python -m bench`. Results are in docs/performance.md."""
