"""A deterministic simulation of the engine: the real engine and policy, simulated ports, virtual time.

One seed is one story. `run(seed)` returns how it went or raises `Broken` with a trace; the same seed always
tells the same story.
"""
