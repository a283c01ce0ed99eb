"""Where Ray has the class of remote functions: for programs that ask `isinstance`.

Owns the name of the module alone; the class is remote.py's, which `ray_lite.remote`, the decorator,
hides from who imports the package.
"""

from ray_lite.remote import RemoteFunction

__all__ = ["RemoteFunction"]
