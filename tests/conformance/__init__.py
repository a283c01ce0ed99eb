"""Conformance: what a caller of Ray sees, checked on ray_lite and on Ray itself.

Owns the cases in which both engines must agree, and the marked ones in which
ray_lite differs on purpose. Uses Ray's public API only, and must not know how
either engine is built.

    pytest tests/conformance                  ray_lite
    pytest tests/conformance --engine ray     Ray, if it is installed
"""
