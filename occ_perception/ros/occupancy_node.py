"""`occupancy_node`: the perception node with only the voxel grid published, to spread tasks over processes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from occ_perception.ros.perception_node import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `occupancy_node`."""
    return run("occupancy_node", ("occupancy",), arguments)


if __name__ == "__main__":
    sys.exit(main())
