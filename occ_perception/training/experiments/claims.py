"""Who is working on what: a lock file per piece of work, held by the process itself, so that none outlives it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from occ_perception.datasets.files import writing
from occ_perception.errors import TrainingError


class ClaimedError(Exception):
    """Somebody else is at it; `holder` says who."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        super().__init__(f"in progress: {holder}")


@contextmanager
def claim(path: Path, console: Console, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file at `path`, which names process and host, and remove it at the end.

    The lock is the kernel's (flock), not the file's existence: the file of a process that was killed is a stale claim,
    which is told and taken over.

    Args:
        wait: wait for the present holder instead of raising.

    Raises:
        ClaimedError: another process holds it.
        TrainingError: the file cannot be written.
    """
    with writing(path, TrainingError):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path, console, wait)
    try:
        if stale := file.read().strip():
            console.print(f"stale claim of {_holder(stale)} taken over: {path.name}", highlight=False)
        with writing(path, TrainingError):
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def holder_of(path: Path) -> str | None:
    """Who holds the lock file at `path`, or None, as the file says: asking for the lock would keep others from it.

    Of another machine no one here knows whether its process still lives.
    """
    try:
        text = path.read_text()
        about = json.loads(text)
        if about["host"] == socket.gethostname():
            os.kill(about["pid"], 0)
    except (FileNotFoundError, ProcessLookupError, ValueError, KeyError, TypeError):
        return None
    except PermissionError:
        pass  # somebody else's, and alive
    return _holder(text)


def _locked(path: Path, console: Console, wait: bool) -> IO[Any]:
    """The file, open and locked."""
    while True:
        file = path.open("a+")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(path.read_text() if path.is_file() else "")
                if not wait:
                    raise ClaimedError(holder) from None
                console.print(f"waiting for {holder}: {path.name}", highlight=False)
                fcntl.flock(file, fcntl.LOCK_EX)
            # The last holder may have removed the file that was waited for.
            if _is_at(file, path):
                file.seek(0)
                return file
            file.close()
        except BaseException:
            file.close()
            raise


def _is_at(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(text: str) -> str:
    try:
        about = json.loads(text)
        return f"process {about['pid']} on {about['host']}"
    except (ValueError, KeyError, TypeError):
        return "an unnamed process"
