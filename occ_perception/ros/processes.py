"""Starts real node processes, drives their life cycle, and ends them all. For demo, bench and tests."""

from __future__ import annotations

import math
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
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from occ_perception.errors import OccPerceptionError

_LOG_LINES = 15
_ASK_AGAIN_S = 3.0
_REACHED = {
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
    Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
}


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
        wrote = f"it wrote\n{tail}" if tail else "it wrote nothing"
        return ProcessError(f"{what}; {wrote}", where=self.name, fix=f"Whole log: {self.log}")

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

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.killpg(self.pid, number)

    def stop(self, patience_s: float = 10.0) -> int:
        """Ask it to end, with growing insistence, and kill it if it does not; its exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if not self.running:
                break
            self.send(number)
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
        """The answer of a service that may be asked twice: on a busy machine an answer can miss a young client."""
        client = self.node.create_client(kind, service)
        answers: list[Any] = []
        try:
            self.until(client.service_is_ready, f"the service {service}", timeout_s)
            self._asking(lambda: client.call_async(request).add_done_callback(lambda f: answers.append(f.result())),
                         lambda: bool(answers), f"an answer of {service}", timeout_s)
            return answers[0]
        finally:
            self.node.destroy_client(client)

    def _asking(self, ask: Callable[[], object], happened: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Ask, and ask again every few seconds, until `happened()`."""
        asked = -math.inf

        def answered() -> bool:
            nonlocal asked
            if not happened() and time.monotonic() - asked > _ASK_AGAIN_S:
                asked = time.monotonic()
                ask()
            return happened()

        self.until(answered, what, timeout_s)

    def change_state(self, node: str, transition: int, timeout_s: float = 60.0) -> bool:
        """Ask a lifecycle node for a transition; whether it succeeded.

        A transition must not be asked for twice. When its answer is long in coming, the state is asked for, which
        the node tells only after the transition.
        """
        change = self.node.create_client(ChangeState, f"{node}/change_state")
        look = self.node.create_client(GetState, f"{node}/get_state")
        outcomes: list[bool] = []
        try:
            self.until(lambda: bool(change.service_is_ready() and look.service_is_ready()), f"the services of {node}",
                       timeout_s)
            request = ChangeState.Request(transition=Transition(id=transition))
            change.call_async(request).add_done_callback(lambda f: outcomes.append(bool(f.result().success)))
            began = time.monotonic()

            def ask_state() -> None:
                if time.monotonic() - began > _ASK_AGAIN_S:
                    look.call_async(GetState.Request()).add_done_callback(
                        lambda f: outcomes.append(f.result().current_state.id == _REACHED[transition]))

            self._asking(ask_state, lambda: bool(outcomes), f"the transition of {node}", timeout_s)
            return outcomes[0]
        finally:
            self.node.destroy_client(change)
            self.node.destroy_client(look)

    def state(self, node: str) -> str:
        """Label of a lifecycle node's state, such as `active`."""
        return str(self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label)

    def bring_up(self, node: str, child: Child, timeout_s: float = 60.0) -> None:
        """Configure and activate a lifecycle node that runs in `child`; each may take `timeout_s`.

        Raises:
            ProcessError: it refused; the end of its log says why.
        """
        for transition, meaning in ((Transition.TRANSITION_CONFIGURE, "configured"),
                                    (Transition.TRANSITION_ACTIVATE, "activated")):
            if not self.change_state(node, transition, timeout_s):
                raise child.error(f"could not be {meaning}")

    def forget(self, child: Child) -> None:
        """Watch a child no longer: it may end by itself."""
        self._children.remove(child)

    def stop(self, child: Child, patience_s: float = 10.0) -> int:
        """End one child; its exit status."""
        self.forget(child)
        return child.stop(patience_s)

    def close(self) -> None:
        """End all children at once, and the node."""
        for child in self._children:
            if child.running:
                child.send(signal.SIGINT)
        while self._children:
            self._children.pop().stop()
        self._cleanup.close()

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
