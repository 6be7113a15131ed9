"""Makes the ROS 2 wheels of a virtual environment usable as a colcon underlay. Run by that environment's Python.

The wheels name their builder's folders in their CMake files and bring no setup script; both are put right
here. Running it again changes nothing.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

ROS_DISTRO = "jazzy"
BUILDER_PYTHON = re.compile(r"/opt/python/cp3\d+-cp3\d+/include/python3\.\d+")
BUILDER_NUMPY = re.compile(r"/opt/python/cp3\d+-cp3\d+/lib/python3\.\d+/site-packages/numpy/_?core/include")


def replace_text(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it into place."""
    draft = path.with_name(f"{path.name}.tmp{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def mend_cmake(prefix: Path) -> list[Path]:
    """Point the exported CMake files at this Python's and NumPy's headers; returns the files that changed."""
    headers = sysconfig.get_path("include")
    changed = []
    for path in sorted((prefix / "share").rglob("*.cmake")):
        text = path.read_text(encoding="utf-8")
        mended = BUILDER_PYTHON.sub(lambda _: headers, BUILDER_NUMPY.sub(lambda _: np.get_include(), text))
        if mended != text:
            replace_text(path, mended)
            changed.append(path)
    return changed


def setup_script(prefix: Path) -> str:
    """Text of the script that a shell, or a colcon overlay, sources to use the wheels."""
    site_packages = Path(sysconfig.get_path("platlib"))
    libraries = [prefix / "lib", *sorted(site_packages.glob("ros_*.libs"))]
    # The wheels re-execute every Python start to set LD_LIBRARY_PATH unless both variables are there.
    return f"""\
# Written by scripts/ros_wheels.py: the ROS 2 wheels of this environment. Source it from sh, bash or zsh.
_occ_prepend() {{
  eval "_occ_old=\\${{$1:-}}"
  case ":$_occ_old:" in
    *":$2:"*) ;;
    *) export "$1=$2${{_occ_old:+:$_occ_old}}" ;;
  esac
  unset _occ_old
}}
_occ_prepend AMENT_PREFIX_PATH "{prefix}"
_occ_prepend CMAKE_PREFIX_PATH "{prefix}"
_occ_prepend LD_LIBRARY_PATH "{":".join(map(str, libraries))}"
_occ_prepend PATH "{prefix}/bin"
unset -f _occ_prepend
export ROS_DISTRO={ROS_DISTRO} ROS_VERSION=2 ROS_PYTHON_VERSION=3
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
"""


def main() -> int:
    """Mend the environment that runs this."""
    prefix = Path(sys.prefix)
    changed = mend_cmake(prefix)
    for name in ("local_setup.sh", "local_setup.bash"):
        replace_text(prefix / name, setup_script(prefix))
    print(f"ROS wheels in {prefix}: {len(changed)} CMake files pointed at this Python")
    return 0


if __name__ == "__main__":
    sys.exit(main())
