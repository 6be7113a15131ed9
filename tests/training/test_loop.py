"""The loop: learns, resumes bit for bit, stops at NaN with the last good state kept."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from occ_perception.datasets.sample import Sample
from occ_perception.errors import ConfigurationError, TrainingError
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.training import loop
from occ_perception.training.batches import NO_AUGMENTATION
from occ_perception.training.checkpoint import load_network, load_tensors
from occ_perception.training.evaluate import evaluate, network_predictor
from occ_perception.training.loop import (
    CHECKPOINT,
    LOG,
    MODEL,
    SUMMARY,
    TrainingConfig,
    batch_indices,
    learning_rate_factor,
    train_on,
)

QUIET = Console(file=io.StringIO())


@pytest.fixture
def config(small: WalkOccConfig, tmp_path: Path) -> TrainingConfig:
    return TrainingConfig(
        data=tmp_path, output=tmp_path / "run", network=small, steps=6, batch_size=2, learning_rate=3e-3,
        validate_every=3, validation_samples=2, prior_samples=4, threads=1,
    )


def test_two_samples_are_learned_by_heart(config: TrainingConfig, samples: Sequence[Sample]) -> None:
    config = replace(config, steps=250, augmentation=NO_AUGMENTATION, validate_every=1000, learning_rate=1e-2)
    summary = train_on(config, samples[:2], samples[:2], console=QUIET)
    assert summary["validation"]["iou"] > 0.9
    assert summary["validation"]["miou"] > 0.8
    assert summary["validation"]["waypoint_error_m"] < 0.3
    network, provenance = load_network(config.output / MODEL)
    again = evaluate(network_predictor(network), samples[:2])
    assert again["per_class"] == pytest.approx(summary["validation"]["per_class"], nan_ok=True)
    assert provenance["steps"] == 250


@pytest.mark.parametrize("bfloat16", [False, True])
def test_interrupted_and_resumed_equals_uninterrupted(
    config: TrainingConfig, samples: Sequence[Sample], bfloat16: bool
) -> None:
    whole = replace(config, output=config.output / "whole", bfloat16=bfloat16)
    train_on(whole, samples, samples, console=QUIET)
    # A checkpoint after every step; reading a sample interrupts the run.
    broken = replace(config, output=config.output / "broken", bfloat16=bfloat16, checkpoint_minutes=1e-9)
    with pytest.raises(KeyboardInterrupt):
        train_on(broken, Interrupting(samples, after=10), samples, console=QUIET)
    done = load_tensors(broken.output / CHECKPOINT)[1]["step"]
    assert 0 < done < 6
    train_on(broken, samples, samples, resume=True, console=QUIET)
    first, second = (load_tensors(c.output / CHECKPOINT) for c in (whole, broken))
    assert first[1]["step"] == second[1]["step"] == 6
    assert first[0].keys() == second[0].keys()
    assert [name for name in first[0] if not torch.equal(first[0][name], second[0][name])] == []


class Interrupting(list[Sample]):
    """Samples whose reading is interrupted, as by a user, after some reads of the loop."""

    def __init__(self, samples: Sequence[Sample], after: int) -> None:
        super().__init__(samples)
        self.left = after + len(samples)  # the class weights read all of them first

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_a_loss_that_is_not_finite_names_the_batch_and_keeps_the_last_good_state(
    config: TrainingConfig, samples: Sequence[Sample]
) -> None:
    config = replace(config, checkpoint_minutes=1e-9, seed=1, augmentation=NO_AUGMENTATION)
    poisoned = [*samples[:3], replace(samples[0], index=77, waypoints_m=np.full((10, 2), 1e38, np.float32))]
    bad_steps = [step for step in range(6) if 3 in batch_indices(step, 4, 2, seed=1)]
    assert bad_steps[0] == 1
    with pytest.raises(TrainingError, match=r"tiny\[77\]") as caught:
        train_on(config, poisoned, samples[:1], console=QUIET)
    assert "step 1" in str(caught.value)
    tensors, header = load_tensors(config.output / CHECKPOINT)
    assert header["step"] == 1
    assert all(t.isfinite().all() for t in tensors.values())
    assert not (config.output / MODEL).exists()


def test_log_and_summary_tell_the_run(config: TrainingConfig, samples: Sequence[Sample]) -> None:
    config = replace(config, steps=20, validate_every=10)
    train_on(config, samples, samples, console=QUIET)
    lines = [json.loads(line) for line in (config.output / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [10, 20]
    assert [line["step"] for line in lines if "total" in line] == [20]
    summary = json.loads((config.output / SUMMARY).read_text())
    assert (summary["steps"], summary["samples"]) == (20, 40)
    assert [path.name for path in config.output.iterdir() if "tmp" in path.name] == []


def test_a_budget_in_minutes_ends_the_training(config: TrainingConfig, samples: Sequence[Sample]) -> None:
    config = replace(config, steps=None, max_minutes=0.02)
    assert train_on(config, samples, samples[:1], console=QUIET)["steps"] >= 1


def test_resuming_another_training_is_refused(config: TrainingConfig, samples: Sequence[Sample]) -> None:
    train_on(config, samples, samples[:1], console=QUIET)
    with pytest.raises(TrainingError, match="seed"):
        train_on(replace(config, seed=9), samples, samples, resume=True, console=QUIET)


def test_resuming_on_other_data_is_refused_with_what_differs(
    config: TrainingConfig, samples: Sequence[Sample]
) -> None:
    data = {"train": {"version": "1", "content_hash": "abc", "samples": 4}}
    train_on(config, samples, samples[:1], data=data, console=QUIET)
    other = {"train": {**data["train"], "content_hash": "def"}}
    with pytest.raises(TrainingError, match="other data: train.content_hash abc, not def"):
        train_on(config, samples, samples[:1], data=other, resume=True, console=QUIET)
    train_on(replace(config, steps=7), samples, samples[:1], data=data, resume=True, console=QUIET)


def test_a_checkpoint_says_where_its_weights_come_from(
    config: TrainingConfig, samples: Sequence[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"train": {"version": "1", "content_hash": "abc", "samples": 4}}
    monkeypatch.setattr(loop, "source_commit", lambda: "first")
    train_on(config, samples, samples[:1], data=data, console=QUIET)
    _, provenance = load_network(config.output / CHECKPOINT)
    assert provenance["data"] == data
    assert (provenance["steps"], provenance["seed"], provenance["commit"]) == (6, 0, "first")
    assert provenance["training"]["batch_size"] == 2
    monkeypatch.setattr(loop, "source_commit", lambda: "second")
    longer = replace(config, steps=7)
    assert train_on(longer, samples, samples[:1], data=data, resume=True, console=QUIET)["commit"] == "first"


def test_the_log_of_a_run_holds_each_of_its_steps_once(config: TrainingConfig, samples: Sequence[Sample]) -> None:
    def validated() -> list[int]:
        lines = [json.loads(line) for line in (config.output / LOG).read_text().splitlines()]
        return [line["step"] for line in lines if "validation" in line]

    train_on(config, samples, samples[:1], console=QUIET)
    with (config.output / LOG).open("a") as log:
        log.write('{"step": 9, "validation": {}}\n{"step": 12, "vali')  # logged after the checkpoint, and cut off
    train_on(replace(config, steps=9), samples, samples[:1], resume=True, console=QUIET)
    assert validated() == [3, 6, 9]
    train_on(config, samples, samples[:1], console=QUIET)
    assert validated() == [3, 6]


def test_every_epoch_visits_every_sample_once() -> None:
    visited = [index for step in range(10) for index in batch_indices(step, 10, 3, seed=1)]
    assert sorted(visited[:10]) == sorted(visited[10:20]) == sorted(visited[20:]) == list(range(10))
    assert visited[:10] != visited[10:20]


def test_schedule_warms_up_and_falls_to_zero() -> None:
    factors = [learning_rate_factor(p, 0.1) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert factors == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])


def test_configuration_lists_its_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TrainingConfig(data=tmp_path, output=tmp_path, batch_size=0, warmup=1.0)
    assert len(caught.value.faults) == 3


def test_foreign_and_broken_files_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x00\x01 no tensors")
    with pytest.raises(TrainingError, match="no readable safetensors"):
        load_network(broken)
    with pytest.raises(TrainingError, match="no such checkpoint"):
        load_network(tmp_path / "absent.safetensors")
