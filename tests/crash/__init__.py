"""Crash tests: processes of a session die at any moment, and what was promised still holds.

Owns the storms, the kill points, the deaths of each kind of process and the crashes of user code,
all seen from Python; the core alone is stormed in tests/c. Whatever is imported by workers
(graph.py, bombs.py) must not import pytest: a worker that has just been replaced starts in
milliseconds.
"""
