"""Live 3D occupancy, flow, tracking and trajectories for robots on sidewalks."""

__version__ = "0.1.0"
