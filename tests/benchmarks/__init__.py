"""How fast the node is, beside its peers in the same run: `make bench`.

Each module with a function `measures(folder)` is a benchmark; `frame` finds them, runs them, and writes what they say to `docs/performance.md`.
"""
