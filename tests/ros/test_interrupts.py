"""A signal may take the context away while an executor waits: that is an end, not an error."""

from __future__ import annotations

import pytest
import rclpy
from rclpy.context import Context
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

from occ_perception.ros import interrupts


@pytest.fixture
def node():
    context = Context()
    rclpy.init(context=context)
    node = Node("spinner", context=context)
    yield node
    if context.ok():
        node.destroy_node()
        context.try_shutdown()


def test_a_context_that_goes_while_waiting_ends_the_spin(node, monkeypatch):
    def interrupted(node):
        node.context.try_shutdown()
        raise rclpy_implementation.RCLError("failed to initialize wait set")

    monkeypatch.setattr(interrupts.rclpy, "spin", interrupted)
    interrupts.spin_until_interrupted(node)
    assert not node.context.ok()


def test_an_error_while_the_context_lives_is_not_swallowed(node, monkeypatch):
    def broken(node):
        raise rclpy_implementation.RCLError("something else")

    monkeypatch.setattr(interrupts.rclpy, "spin", broken)
    with pytest.raises(rclpy_implementation.RCLError, match="something else"):
        interrupts.spin_until_interrupted(node)
