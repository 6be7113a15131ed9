"""Quality of service of every topic: inputs take what any driver offers, outputs are reliable and never pile up."""

from __future__ import annotations

from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble's name of the module
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

__all__ = [
    "LATCHED", "ODOMETRY_INPUT", "OUTPUT", "PLAYBACK", "SENSOR_INPUT", "PublisherEventCallbacks",
    "SubscriptionEventCallbacks", "policy_name",
]


def _profile(depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


SENSOR_INPUT = _profile(5, ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
"""Images, clouds and camera_info. Best effort matches reliable publishers as well. Deeper than 1, so that on a busy
machine our inbox chooses the newest and counts what it replaced, where DDS would drop in silence."""

ODOMETRY_INPUT = _profile(50, ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
"""Odometry is small and interpolated, so a burst is kept."""

OUTPUT = _profile(1, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""Results: every reader gets the newest, a slow one cannot make a queue grow."""

LATCHED = _profile(1, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
"""What is said once and holds: label names, static transforms."""

PLAYBACK = _profile(10, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""What the player publishes: both reliable and best-effort readers match."""


def policy_name(event: Any) -> str:
    """The policy that an incompatible-QoS event complains of, such as RELIABILITY."""
    return str(qos_policy_name_from_kind(event.last_policy_kind))
