"""A worker process of a sweep: ``python -m kompakt.sweeping.worker CHANNEL LIFE``.

Both are numbers of open descriptors: a channel of messages, and a pipe that nobody ever writes to. When the program
that started this process dies, however it dies, the pipe ends, and so does this process: it never works for nobody.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from kompakt.errors import KompaktError


def main() -> None:
    """Be told what to do, then make trials until the channel ends."""
    channel, life = Connection(int(sys.argv[1])), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started us
    threading.Thread(target=_leave_when_it_ends, args=(life,), daemon=True).start()
    # What runtimes print must not get between the results of the program.
    os.dup2(2, 1)
    try:
        order = channel.recv()
        sys.path[:] = order["path"]
        try:
            work = started(order["start"], order["content"])
        except Exception as error:  # noqa: BLE001  (the other side decides what to do with it)
            channel.send(("error", -1, sendable(error)))
            return
        channel.send(("ready", -1, None))
        while True:
            number, plan = channel.recv()
            try:
                channel.send(("row", number, work(plan)))
            except Exception as error:  # noqa: BLE001  (the other side decides what to do with it)
                channel.send(("error", number, sendable(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def started(spec: str, content: Any) -> Any:
    """What ``package.module:function`` makes of the content: a function from a plan to its row."""
    module, _, function = spec.partition(":")
    return getattr(importlib.import_module(module), function)(content)


def sendable(error: Exception) -> Exception:
    """The error itself, where the other side surely knows its class; else its words."""
    if isinstance(error, KompaktError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}"[:2000])


def _leave_when_it_ends(descriptor: int) -> None:
    os.read(descriptor, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
