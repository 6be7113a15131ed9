"""A procedural sidewalk world, its cameras and LiDAR, and the ground truth of what they see."""
