# Sourced by the scripts: which ROS 2 is used, and how a shell comes to it.

# `wheels` of .venv, or the `installation` that the caller has sourced. A shell with our wheels sourced has a
# ROS_DISTRO too; the second variable tells the two apart.
ros_kind=wheels
if [ -n "${ROS_DISTRO:-}" ] && [ -z "${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-}" ]; then
  ros_kind=installation
fi

# use_ros VENV: puts ROS 2 and that environment's programs into this shell.
use_ros() {
  export VIRTUAL_ENV=$1 PATH="$1/bin:$PATH"
  unset PYTHONHOME
  if [ "$ros_kind" = wheels ]; then
    unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
    . "$1/local_setup.sh"
  fi
}
