"""Ending once, in order: what a second interrupt must not break."""

from __future__ import annotations

import signal

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.signals import uninstall_signal_handlers


def spin_until_interrupted(node: Node) -> None:
    """Spin until SIGINT or SIGTERM, which are the usual end and no error."""
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except rclpy_implementation.RCLError:
        if node.context.ok():  # otherwise the signal took the context away while the executor built its wait set
            raise


def end_in_peace() -> None:
    """From here on SIGINT is ignored: one was enough to end us, and launch and terminal may both send it."""
    uninstall_signal_handlers()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
