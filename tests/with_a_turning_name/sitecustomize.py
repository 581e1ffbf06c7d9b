"""A name that leads elsewhere each time that it is asked for: ``turning.test`` to a public address, then to this
machine, and so on. For tests alone, on PYTHONPATH, where each process of a server finds it as it begins."""

import itertools
import socket
import sys
from contextlib import suppress
from pathlib import Path

NAME = "turning.test"
PUBLIC = "4000::1"
"""In a block that was given to nobody, so that whoever goes there reaches nobody."""
asked = itertools.count()


def found(port):
    if next(asked) % 2 == 0:
        return [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (PUBLIC, port, 0, 0))]
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]


def turning(host, port, *arguments, **options):
    return found(port) if host in (NAME, NAME.encode()) else known(host, port, *arguments, **options)


known, socket.getaddrinfo = socket.getaddrinfo, turning

with suppress(ImportError):  # where Ray has it, it asks the system by itself
    import uvloop

    async def turning_on_a_loop(self, host, port, **options):
        return found(port) if host in (NAME, NAME.encode()) else await known_on_a_loop(self, host, port, **options)

    known_on_a_loop, uvloop.Loop.getaddrinfo = uvloop.Loop.getaddrinfo, turning_on_a_loop

# Python imports one module of this name, the first that it finds: the next one is run here.
folders = [Path(folder).resolve() for folder in sys.path]
for folder in folders[folders.index(Path(__file__).resolve().parent) + 1 :]:
    if (beside := folder / "sitecustomize.py").is_file():
        exec(compile(beside.read_text(), str(beside), "exec"), globals())
        break
