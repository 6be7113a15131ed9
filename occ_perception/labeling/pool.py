"""Where the work of a fleet is done: processes of this machine, or a Ray cluster. A worker that dies is an answer."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from types import TracebackType
from typing import Any, Protocol

from occ_perception.errors import ConfigurationError

_START = "Start one with `ray start --head`, and name its address"
_REACH_S = 10.0


class WorkerDied(Exception):  # noqa: N818  (an answer, not an error of the caller)
    """The process or the machine that did the work is gone: killed, out of memory, or switched off."""


Answer = tuple[Any, Any]
"""The key that a piece of work was submitted with, and its result or a WorkerDied."""


class Pool(Protocol):
    """Does pieces of work side by side. A context manager; leaving it stops what is still running."""

    @property
    def free(self) -> int:
        """How many pieces of work may be submitted now."""

    def submit(self, key: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """Start `function(*arguments)`; all of it must be picklable, and the function must not raise."""

    def answers(self) -> Iterator[Answer]:
        """Wait until some work is done, and give all answers there are."""

    def __enter__(self) -> Pool: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...


class LocalPool:
    """Processes of this machine, each with one piece of work at a time.

    Every process is a pool of its own, so that one that dies takes no other's work along. All of them end with the
    pool, whatever ends it: they hold the far end of a pipe whose near end is closed then, even by a kill.
    """

    def __init__(self, workers: int) -> None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of the processes: products of small matrices gain nothing
        self._far, self._near = multiprocessing.Pipe(duplex=False)
        self._idle = [self._process() for _ in range(workers)]
        self._busy: dict[Future[Any], tuple[Any, ProcessPoolExecutor]] = {}

    @property
    def free(self) -> int:
        """As of `Pool`."""
        return len(self._idle)

    def submit(self, key: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """As of `Pool`."""
        process = self._idle.pop()
        try:
            future = process.submit(function, *arguments)
        except BrokenProcessPool:  # it died while it had nothing to do
            process = self._process()
            future = process.submit(function, *arguments)
        self._busy[future] = key, process

    def answers(self) -> Iterator[Answer]:
        """As of `Pool`."""
        for future in wait(self._busy, return_when=FIRST_COMPLETED).done:
            key, process = self._busy.pop(future)
            died = isinstance(future.exception(), BrokenProcessPool)
            if died:
                process.shutdown(wait=False)
            self._idle.append(self._process() if died else process)
            yield key, WorkerDied() if died else future.result()

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._near.close()  # what is half done is done again by the next run
        for process in (*self._idle, *(process for _, process in self._busy.values())):
            process.shutdown(wait=False, cancel_futures=True)
        self._far.close()

    def _process(self) -> ProcessPoolExecutor:
        """One process, started when it gets its first work; a fork would take threads and the near end along."""
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(self._far,))


def _begin(far: Connection) -> None:
    """One core for each process; interrupts are the parent's affair, and without its pool nobody waits for answers."""
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(far,), daemon=True).start()


def _end_with(far: Connection) -> None:
    wait_for([far])  # nothing is ever sent: it is readable when the near end is closed
    os._exit(1)


class RayPool:
    """The workers of a Ray cluster, one core for each piece of work. They need this package and the same paths.

    Args:
        address: of the head node, `HOST:PORT`; `auto` for a cluster that this machine belongs to.

    Raises:
        ConfigurationError: ray is not installed, or there is no cluster.
    """

    def __init__(self, address: str) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ConfigurationError([f"needs ray, which cannot be imported: {error}"], where="--ray",
                                     fix="pip install 'occ_perception[label]', or leave --ray away") from None
        _require_reachable(address)
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigurationError([f"no Ray cluster at {address!r}: {error}"], where="--ray",
                                     fix=_START) from error
        self._run = self._ray.remote(num_cpus=1, max_retries=0)(_call)
        self._busy: dict[Future[Any], Any] = {}

    @property
    def free(self) -> int:
        """As of `Pool`; a cluster may grow and shrink, and keeps some work waiting for whoever is free first."""
        return 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1))) - len(self._busy)

    def submit(self, key: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """As of `Pool`."""
        self._busy[self._run.remote(function, *arguments).future()] = key

    def answers(self) -> Iterator[Answer]:
        """As of `Pool`."""
        exceptions = self._ray.exceptions
        for future in wait(self._busy, return_when=FIRST_COMPLETED).done:
            key, error = self._busy.pop(future), future.exception()
            died = isinstance(error, exceptions.RayError) and not isinstance(error, exceptions.RayTaskError)
            yield key, WorkerDied() if died else future.result()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._ray.shutdown()  # cancels this driver's work; the cluster goes on


def _require_reachable(address: str) -> None:
    """Ray itself would try for minutes. Addresses of other forms (`auto`, `ray://...`) are left to it."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=_REACH_S).close()
        except OSError as error:
            raise ConfigurationError([f"no Ray cluster at {address!r}: {error}"], where="--ray", fix=_START) from error


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function of the package by its name: the workers import it, nothing of the code travels."""
    import cv2

    cv2.setNumThreads(1)
    return function(*arguments)
