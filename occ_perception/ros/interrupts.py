"""Ending once, in order: what a second interrupt must not break."""

from __future__ import annotations

import signal

from rclpy.signals import uninstall_signal_handlers


def end_in_peace() -> None:
    """From here on SIGINT is ignored: one was enough to end us, and launch and terminal may both send it."""
    uninstall_signal_handlers()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
