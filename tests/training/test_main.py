"""The command line of the trainings: errors are one message, kinds have their own options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from occ_perception import cli
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training import __main__ as commands
from occ_perception.training.augmentation import WORN_SCANS
from occ_perception.training.checkpoint import save_tensors
from occ_perception.training.loop import TrainingConfig
from occ_perception.training.runner import CHECKPOINT, Interrupted
from occ_perception.training.trunk import CoarseClasses, TrunkConfig, load_trunk


def invoke(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(commands.main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations with which trainings are called; none is run."""
    called: list[Any] = []
    for name in ("train", "pretrain"):
        monkeypatch.setattr(commands, name, lambda config, resume, console: called.append((config, resume)))
    return called


def test_walkocc_takes_2d_only_splits_rays_and_a_trunk(tmp_path: Path, configs: list[Any]) -> None:
    status, said = invoke(
        "walkocc", tmp_path, tmp_path / "out", "--size", "small", "--steps", 9, "--images", "night=30",
        "--images", "day=20", "--images-per-batch", 2, "--rays", 64, "--consistency", "0.5", "--clear", "day",
        "--worn-scans", "--schedule", "step", "--trunk", tmp_path / "trunk.safetensors", "--calibration-samples", 200,
        "--validation-samples", 7, "--resume")
    assert (status, said) == (0, "")
    [(config, resume)] = configs
    assert isinstance(config, TrainingConfig)
    assert config.extra_images == {"night": 30, "day": 20}
    assert (config.images_per_batch, config.rays) == (2, 64)
    assert (config.loss.consistency, config.loss.free_space, config.clearing) == (0.5, 1.0, ("day",))
    assert config.augmentation == WORN_SCANS
    assert (config.calibration_samples, config.validation_samples) == (200, 7)
    assert (config.schedule, config.trunk, resume) == ("step", tmp_path / "trunk.safetensors", True)
    assert config.network == WalkOccConfig.small()


def test_trunk_has_its_own_defaults_also_through_occ_perception(tmp_path: Path, configs: list[Any]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "trunk", str(tmp_path), str(tmp_path / "out"), "--steps", "5"])
    assert end.value.code == 0
    lite = WalkOccConfig.lite()
    assert configs == [(TrunkConfig(data=tmp_path, output=tmp_path / "out", steps=5, network=lite), False)]


@pytest.mark.parametrize("size", [[], ["--size", "small"]])
def test_a_trunk_fits_the_network_of_the_same_size(tmp_path: Path, configs: list[Any], size: list[str]) -> None:
    for kind in ("trunk", "walkocc"):
        assert invoke(kind, tmp_path, tmp_path / kind, "--steps", 1, *size) == (0, "")
    trunk, network = (CoarseClasses(config.network, (2, 2)).walkocc if isinstance(config, TrunkConfig)
                      else WalkOcc(config.network) for config, _ in configs)
    path = tmp_path / "trunk.safetensors"
    save_tensors(path, {name: value for name, value in trunk.state_dict().items()
                        if name.startswith(("backbone.", "neck."))}, {"network": trunk.config.to_dict()})
    load_trunk(network, path)


def test_an_interrupted_training_keeps_its_status_through_occ_perception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted("was interrupted at step 3", number=15)

    monkeypatch.setattr(commands, "train", interrupted)
    for options, status in (["--steps", "1"], 128 + 15), (["--steps", "0"], cli.ERROR_STATUS):
        with pytest.raises(SystemExit) as end:
            cli.main(["train", "walkocc", str(tmp_path), str(tmp_path), *options])
        assert end.value.code == status


def test_faults_are_one_message_and_a_status(tmp_path: Path) -> None:
    status, said = invoke("walkocc", tmp_path, tmp_path, "--steps", 1, "--images", "night")
    assert status == 1
    assert "--images must be SPLIT=COUNT, got 'night'" in said
    status, said = invoke("trunk", tmp_path, tmp_path, "--steps", 0, "--schedule", "linear")
    assert status == 1
    assert "steps must be positive" in said
    assert "schedule must be one of cosine, step" in said
    status, said = invoke("trunk", tmp_path, tmp_path, "--steps", 1)
    assert status == 1
    assert "no finished split 'trunk'" in said.replace("\n", "")


def test_an_interrupted_training_ends_with_the_status_of_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted("was interrupted at step 3", fix="Go on with --resume", number=15)

    monkeypatch.setattr(commands, "train", interrupted)
    status, said = invoke("walkocc", tmp_path, tmp_path, "--steps", 1)
    assert status == 128 + 15
    assert "was interrupted at step 3. Go on with --resume" in said


@pytest.mark.parametrize("kind", ["walkocc", "trunk"])
def test_a_training_is_not_overwritten_unless_that_is_said(tmp_path: Path, configs: list[Any], kind: str) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"hours of work")
    status, said = invoke(kind, tmp_path, tmp_path, "--steps", 1)
    assert status == 1
    assert "a training is there already" in said
    assert "--resume" in said
    assert "--overwrite" in said
    assert not configs
    for option in ("--resume", "--overwrite"):
        assert invoke(kind, tmp_path, tmp_path, "--steps", 1, option) == (0, "")
    assert [resume for _, resume in configs] == [True, False]
    assert (tmp_path / CHECKPOINT).read_bytes() == b"hours of work"


def test_a_training_can_start_from_a_model(tmp_path: Path, configs: list[Any]) -> None:
    assert invoke("walkocc", tmp_path, tmp_path / "out", "--steps", 1, "--start", tmp_path / "model") == (0, "")
    assert configs[0][0].start == tmp_path / "model"
