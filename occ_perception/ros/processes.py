"""Starts real node processes, talks to them through lifecycle services, and ends them all. For demo, bench and tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from occ_perception.errors import OccPerceptionError

_LOG_LINES = 15


class ProcessError(OccPerceptionError):
    """A process that ended when it should not, or did not do in time what it was asked."""


class Child:
    """One `python -m module` with its output in a log file.

    Args:
        name: how messages call it.
        module: module to run.
        arguments: its command line.
        log: file for its output.
        environment: variables added to this process's.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], log: Path,
                 environment: Mapping[str, str] | None = None) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            # A session of its own: Ctrl-C in a terminal reaches us alone, and we end the children in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=file, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}, start_new_session=True)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def error(self, what: str) -> ProcessError:
        """A ProcessError about it that shows the end of its log."""
        tail = "\n".join(f"    {line}" for line in self.output().splitlines()[-_LOG_LINES:])
        return ProcessError(f"{what}; it wrote\n{tail or '    (nothing)'}", where=self.name, fix=f"Whole log: {self.log}")

    def require_running(self) -> None:
        """Raise ProcessError if it has ended."""
        if not self.running:
            raise self.error(f"ended with status {self._process.returncode}")

    def wait(self, timeout_s: float) -> int:
        """Its exit status, once it has ended by itself."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.error(f"had not ended after {timeout_s:g} s") from None

    def stop(self, patience_s: float = 10.0) -> int:
        """Ask it to end (SIGINT, then SIGTERM), kill it if it does not; its exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if not self.running:
                break
            os.killpg(self.pid, number)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        return self._process.wait()


class Operator:
    """A node in this process that starts children, drives their life cycle and waits for what happens.

    A context manager: leaving it ends every child and the node, whatever happened. Waiting always watches the
    children too, so that one that dies is reported at once and not after a timeout.

    Args:
        name: name of the node.
        logs: folder for the children's logs.
    """

    def __init__(self, name: str, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []
        with ExitStack() as stack:
            self._context = Context()
            rclpy.init(context=self._context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
            stack.callback(self._context.try_shutdown)
            self.node = Node(name, context=self._context)
            stack.callback(self.node.destroy_node)
            self._executor = SingleThreadedExecutor(context=self._context)
            stack.callback(self._executor.shutdown)
            self._executor.add_node(self.node)
            self._cleanup = stack.pop_all()

    def start(self, name: str, module: str, arguments: Sequence[str],
              environment: Mapping[str, str] | None = None) -> Child:
        """Start a child; its log is `<logs>/<name>.log`."""
        child = Child(name, module, arguments, self._logs / f"{name}.log", environment)
        self._children.append(child)
        return child

    def until(self, happened: Callable[[], bool], what: str, timeout_s: float, *, watch: bool = True) -> None:
        """Serve callbacks until `happened()`.

        Raises:
            ProcessError: a child ended meanwhile (unless not `watch`), or it did not happen within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not happened():
            if watch:
                for child in self._children:
                    child.require_running()
            if time.monotonic() > deadline:
                waited = f"waited {timeout_s:g} s for {what}"
                raise self._children[-1].error(waited) if self._children else ProcessError(waited, where="operator")
            self._executor.spin_once(timeout_sec=0.05)

    def call(self, kind: type, service: str, request: Any, timeout_s: float = 20.0) -> Any:
        """The answer of a service."""
        client = self.node.create_client(kind, service)
        try:
            self.until(client.service_is_ready, f"the service {service}", timeout_s)
            future = client.call_async(request)
            self.until(future.done, f"an answer of {service}", timeout_s)
            return future.result()
        finally:
            self.node.destroy_client(client)

    def change_state(self, node: str, transition: int, timeout_s: float = 60.0) -> bool:
        """Ask a lifecycle node for a transition; whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, f"{node}/change_state", request, timeout_s).success)

    def state(self, node: str) -> str:
        """Label of a lifecycle node's state, such as `active`."""
        return str(self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label)

    def bring_up(self, node: str, child: Child) -> None:
        """Configure and activate a lifecycle node that runs in `child`.

        Raises:
            ProcessError: it refused; the end of its log says why.
        """
        for transition, meaning in ((Transition.TRANSITION_CONFIGURE, "configured"),
                                    (Transition.TRANSITION_ACTIVATE, "activated")):
            if not self.change_state(node, transition):
                raise child.error(f"could not be {meaning}")

    def stop(self, child: Child, patience_s: float = 10.0) -> int:
        """End one child; its exit status."""
        self._children.remove(child)
        return child.stop(patience_s)

    def close(self) -> None:
        """End all children, the last one first, and the node."""
        while self._children:
            self._children.pop().stop()
        self._cleanup.close()

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
