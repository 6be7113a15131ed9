"""Shipped files are found, and the transport profile of the user is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from occ_perception.errors import ConfigurationError
from occ_perception.ros.environment import PROFILE_VARIABLES, shipped, use_transport_profile

ROOT = Path(__file__).resolve().parents[2]


def test_the_checkout_comes_first() -> None:
    assert shipped("config/fastdds.xml") == ROOT / "config" / "fastdds.xml"


def test_an_installed_share_folder_is_searched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "share" / "occ_perception" / "models" / "x").mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert shipped("models/x") == tmp_path / "share" / "occ_perception" / "models" / "x"


def test_what_is_not_shipped_is_named() -> None:
    with pytest.raises(ConfigurationError, match="models/none is not installed"):
        shipped("models/none")


def test_both_names_of_the_profile_are_set() -> None:
    environment: dict[str, str] = {}
    use_transport_profile(environment)
    assert environment == dict.fromkeys(PROFILE_VARIABLES, str(ROOT / "config" / "fastdds.xml"))


@pytest.mark.parametrize("name", PROFILE_VARIABLES)
def test_a_profile_of_the_user_is_kept(name: str) -> None:
    environment = {name: "/etc/mine.xml"}
    use_transport_profile(environment)
    assert environment == {name: "/etc/mine.xml"}
