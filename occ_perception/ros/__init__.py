"""ROS 2 nodes over the pipelines: the only place that imports rclpy and message packages."""
