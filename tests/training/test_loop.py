"""The loop: learns, resumes bit for bit, stops at NaN with the last good state kept."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import save_file

from occ_perception.calibration import save_rig
from occ_perception.datasets import open_split
from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.datasets.scene_folder import write_sample
from occ_perception.datasets.sidewalk3d import SemanticCloud, write_sequence, write_splits
from occ_perception.errors import ConfigurationError, DatasetError, TrainingError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.training import checkpoint, loop
from occ_perception.training.augmentation import NO_AUGMENTATION
from occ_perception.training.batches import make_item
from occ_perception.training.checkpoint import load_network, load_tensors, save_tensors
from occ_perception.training.evaluate import OnGrid, evaluate, network_predictor
from occ_perception.training.loop import (
    CHECKPOINT,
    LOG,
    MODEL,
    SUMMARY,
    Picked,
    TrainingConfig,
    WalkOccTask,
    train,
    train_on,
)
from occ_perception.training.losses import LossConfig
from occ_perception.training.runner import Interrupted
from occ_perception.training.schedule import batch_indices

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_from_which_a_hybrid_training_goes_on_bit_for_bit(
    config: TrainingConfig, samples: Sequence[Sample], image_samples: Sequence[ImageSample], number: int
) -> None:
    config = replace(config, images_per_batch=2, rays=6, loss=LossConfig(consistency=1.0), loaders=2)
    whole, broken = (replace(config, output=config.output / name) for name in ("whole", "broken"))
    train_on(whole, samples, samples, images=image_samples, console=QUIET)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="Go on with --resume") as caught:
        train_on(broken, Interrupting(samples, after=9, number=number), samples, images=image_samples, console=QUIET)
    assert caught.value.number == number
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert 0 < load_tensors(broken.output / CHECKPOINT)[1]["step"] < 6
    assert not (broken.output / MODEL).exists()
    train_on(broken, samples, samples, images=image_samples, resume=True, console=QUIET)
    for name in (CHECKPOINT, MODEL):
        first, second = (load_tensors(c.output / name)[0] for c in (whole, broken))
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == []


class Interrupting(list[Sample]):
    """Samples whose reading is interrupted, as by a user or by a signal, after some reads of the loop."""

    def __init__(self, samples: Sequence[Sample], after: int, number: int | None = None) -> None:
        super().__init__(samples)
        self.left = after + len(samples)  # the class weights read all of them first
        self.number = number

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        self.left -= 1
        if self.left == -1 and self.number is not None:
            os.kill(os.getpid(), self.number)
        elif self.left < 0 and self.number is None:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_a_disk_that_fills_up_keeps_the_last_checkpoint_to_go_on_from(
    config: TrainingConfig, samples: Sequence[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch:
        written: list[Path] = []

        def save_until_full(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
            written.append(path)
            if len(written) == 3:
                path.write_bytes(b"half of")
                raise OSError(errno.ENOSPC, "No space left on device")
            save_file(tensors, path, metadata)

        patch.setattr(checkpoint, "save_file", save_until_full)
        with pytest.raises(TrainingError, match=r"No space left on device.*What was there before is whole"):
            train_on(config, samples, samples[:1], console=QUIET)
    assert load_tensors(config.output / CHECKPOINT)[1]["step"] == 2
    assert [path.name for path in config.output.iterdir() if "tmp" in path.name] == []
    assert train_on(config, samples, samples[:1], resume=True, console=QUIET)["steps"] == 6


def test_a_loss_that_is_not_finite_names_the_batch_and_keeps_the_last_good_state(
    config: TrainingConfig, samples: Sequence[Sample], image_samples: Sequence[ImageSample]
) -> None:
    config = replace(config, checkpoint_minutes=1e-9, seed=1, augmentation=NO_AUGMENTATION, images_per_batch=1)
    poisoned = [*samples[:3], replace(samples[0], index=77, waypoints_m=np.full((10, 2), 1e38, np.float32))]
    bad_steps = [step for step in range(6) if 3 in batch_indices(step, 4, 2, seed=1)]
    assert bad_steps[0] == 1
    with pytest.raises(TrainingError, match=r"tiny\[77\].*flat\[") as caught:
        train_on(config, poisoned, samples[:1], images=image_samples, console=QUIET)
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
    with pytest.raises(TrainingError, match="another configuration: seed 0, not 9"):
        train_on(replace(config, seed=9), samples, samples, resume=True, console=QUIET)


def test_a_checkpoint_that_is_older_than_a_field_is_gone_on_with_while_the_field_has_its_default(
    config: TrainingConfig, samples: Sequence[Sample]
) -> None:
    train_on(config, samples, samples[:1], console=QUIET)
    path = config.output / CHECKPOINT
    tensors, header = load_tensors(path)
    del header["training"]["loss"]["free_space"], header["training"]["seed"]
    save_tensors(path, tensors, header)
    more = replace(config, steps=7)
    assert train_on(more, samples, samples[:1], resume=True, console=QUIET)["steps"] == 7
    save_tensors(path, tensors, header)
    with pytest.raises(TrainingError, match="another configuration: seed 0, not 9"):
        train_on(replace(more, seed=9), samples, samples[:1], resume=True, console=QUIET)


def test_resuming_on_other_data_is_refused_with_what_differs(
    config: TrainingConfig, samples: Sequence[Sample]
) -> None:
    data = {"train": {"version": "1", "content_hash": "abc", "samples": 4}}
    train_on(config, samples, samples[:1], data=data, console=QUIET)
    other = {"train": {**data["train"], "content_hash": "def"}}
    with pytest.raises(TrainingError, match=r"other data: train\.content_hash abc, not def"):
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


def test_configuration_lists_its_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TrainingConfig(data=tmp_path, output=tmp_path, batch_size=0, warmup=1.0)
    assert len(caught.value.faults) == 3
    with pytest.raises(ConfigurationError) as caught:
        TrainingConfig(data=tmp_path, output=tmp_path, steps=1, extra_images={"night": 0}, rays=-1, schedule="linear",
                       loss=LossConfig(consistency=1.0), loaders=0)  # type: ignore[arg-type]
    assert [fault.split()[0] for fault in caught.value.faults] == [
        "loaders", "schedule", "rays", "extra_images", "extra_images"]
    with pytest.raises(ConfigurationError) as caught:
        TrainingConfig(data=tmp_path, output=tmp_path, steps=1, rays=9, clearing=("day",))
    assert [fault.split(",")[0] for fault in caught.value.faults] == [
        "clearing names day", "the loss of free space needs a weight and clearing"]
    with pytest.raises(ConfigurationError, match="only one of them is given"):
        TrainingConfig(data=tmp_path, output=tmp_path, steps=1, rays=9, loss=LossConfig(free_space=1.0))


def test_hybrid_batches_hold_paired_samples_first_and_depend_on_seed_and_step_alone(
    config: TrainingConfig, samples: Sequence[Sample], image_samples: Sequence[ImageSample]
) -> None:
    config = replace(config, images_per_batch=3, rays=5)
    task = WalkOccTask(config, samples, image_samples, samples)
    inputs, targets = task.batch(1)
    again = WalkOccTask(config, samples, image_samples, samples).batch(1)
    other = WalkOccTask(replace(config, seed=1), samples, image_samples, samples).batch(1)
    assert inputs["images"].shape[0] == 5
    assert (targets["labels"] != 255).flatten(1).any(1).tolist() == [True, True, False, False, False]
    assert targets["ray_labels"].shape == (5, 5)
    assert all(torch.equal(value, again[0][name]) for name, value in inputs.items())
    assert not torch.equal(inputs["images"], other[0]["images"])
    assert task.names(1).count("tiny") == 2
    assert task.names(1).count("flat") == 3


def test_extra_images_are_evenly_spread_over_each_split(image_samples: Sequence[ImageSample]) -> None:
    picked = Picked({"a": (image_samples, 2), "b": (image_samples[:3], 1), "c": (image_samples[:1], 1)})
    assert [picked[i].index for i in range(len(picked))] == [11, 13, 11, 10]
    assert len(Picked({"all": (image_samples, 4)})) == 4


def test_more_images_than_a_split_has_are_refused(image_samples: Sequence[ImageSample]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Picked({"night": (image_samples, 5), "day": (image_samples, 4), "bodies": (image_samples[:1], 9)})
    assert caught.value.faults == ["night has 4 samples, 5 are asked for", "bodies has 1 samples, 9 are asked for"]


class Breaking(list[Sample]):
    """Samples of which every read fails after some."""

    def __init__(self, samples: Sequence[Sample], after: int) -> None:
        super().__init__(samples)
        self.left = after + len(samples)  # the class weights read all of them first

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        self.left -= 1
        if self.left < 0:
            raise DatasetError("cannot be read", where="007.npz")
        return super().__getitem__(index)


def test_a_broken_file_ends_a_training_but_loses_no_step(config: TrainingConfig, samples: Sequence[Sample]) -> None:
    with pytest.raises(DatasetError, match=r"007\.npz: cannot be read"):
        train_on(config, Breaking(samples, after=6), samples[:1], console=QUIET)
    assert load_tensors(config.output / CHECKPOINT)[1]["step"] == 3
    assert train_on(config, samples, samples[:1], resume=True, console=QUIET)["steps"] == 6


def test_a_broken_file_of_the_validation_loses_no_step_either(
    config: TrainingConfig, samples: Sequence[Sample]
) -> None:
    with pytest.raises(DatasetError, match=r"007\.npz"):
        train_on(config, samples, Breaking(samples[:1], after=-1), console=QUIET)
    assert load_tensors(config.output / CHECKPOINT)[1]["step"] == config.validate_every


def test_a_network_that_takes_ranges_is_validated_with_them_and_without(
    config: TrainingConfig, samples: Sequence[Sample]
) -> None:
    config = replace(config, network=replace(config.network, lidar=True))
    seen = train_on(config, samples, samples, console=QUIET)["validation"]
    model = load_network(config.output / MODEL)[0]
    for scores, use_lidar in ((seen, True), (seen["cameras_alone"], False)):
        again = evaluate(network_predictor(model, use_lidar=use_lidar), samples, limit=config.validation_samples)
        assert scores["per_class"] == pytest.approx(again["per_class"], nan_ok=True)
        assert scores["waypoint_error_m"] == pytest.approx(again["waypoint_error_m"])
    assert seen["waypoint_error_m"] != seen["cameras_alone"]["waypoint_error_m"]
    lines = [json.loads(line) for line in (config.output / LOG).read_text().splitlines()]
    assert all("cameras_alone" in line["validation"] for line in lines if "validation" in line)


def test_a_training_that_ended_before_its_summary_is_finished_with_its_losses(
    config: TrainingConfig, samples: Sequence[Sample]
) -> None:
    first = train_on(config, samples, samples[:1], console=QUIET)
    assert first["losses"]["total"] > 0
    for name in (SUMMARY, MODEL):
        (config.output / name).unlink()
    again = train_on(config, samples, samples[:1], resume=True, console=QUIET)
    assert again["losses"] == first["losses"]
    assert (config.output / MODEL).is_file()
    tensors, header = load_tensors(config.output / CHECKPOINT)
    del header["recent"]  # as checkpoints were
    save_tensors(config.output / CHECKPOINT, tensors, header)
    (config.output / SUMMARY).unlink()
    assert train_on(config, samples, samples[:1], resume=True, console=QUIET)["losses"] == {}


def test_hybrid_training_learns_and_is_told_in_the_summary(
    config: TrainingConfig, samples: Sequence[Sample], image_samples: Sequence[ImageSample]
) -> None:
    config = replace(config, images_per_batch=2, rays=8, steps=20, loss=LossConfig(consistency=1.0))
    summary = train_on(config, samples, samples[:1], images=image_samples, console=QUIET)
    assert (summary["samples"], summary["image_samples"]) == (40, 40)
    assert {"occupancy", "depth", "semantics", "trajectory", "consistency", "total"} <= summary["losses"].keys()


def test_images_that_are_asked_for_must_be_there(config: TrainingConfig, samples: Sequence[Sample]) -> None:
    with pytest.raises(TrainingError, match="images_per_batch is 2, but there are no 2D-only images"):
        train_on(replace(config, images_per_batch=2), samples, samples, console=QUIET)
    with pytest.raises(TrainingError, match="the split train has no samples"):
        train_on(config, [], samples, console=QUIET)


def test_terms_without_weight_are_neither_computed_nor_logged(
    config: TrainingConfig, samples: Sequence[Sample]
) -> None:
    config = replace(config, loss=LossConfig.trajectory_only(), steps=20)
    summary = train_on(config, samples, samples[:1], console=QUIET)
    assert summary["losses"].keys() == {"trajectory", "total", "gradient_norm", "learning_rate"}
    lines = [json.loads(line) for line in (config.output / LOG).read_text().splitlines()]
    assert any("trajectory" in line for line in lines)


def test_splits_on_disk_are_mixed_by_name(
    config: TrainingConfig, samples: Sequence[Sample], image_samples: Sequence[ImageSample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Split(list):  # type: ignore[type-arg]
        version, content_hash = "1", "abc"

    splits = {"train": Split(samples), "val": Split(samples[:1]), "night": Split(image_samples)}
    for name in ("open_split", "ImageDataset"):
        monkeypatch.setattr(loop, name, lambda root, split: splits[split])
    config = replace(config, extra_images={"night": 2}, images_per_batch=1)
    summary = train(config, console=QUIET)
    assert summary["data"]["night"] == {"version": "1", "content_hash": "abc", "samples": 4}
    splits["night"].content_hash = "def"
    with pytest.raises(TrainingError, match=r"other data: night\.content_hash abc, not def"):
        train(replace(config, steps=7), resume=True, console=QUIET)


@pytest.fixture
def labelled(config: TrainingConfig, samples: Sequence[Sample]) -> Path:
    """A folder with `train`, which was labelled, and `val`, which was simulated."""
    sequence = [replace(sample, index=k, stamp_ns=500_000_000 * k) for k, sample in enumerate(samples)]
    clouds = [SemanticCloud(sample.points_m, np.ones(len(sample.points_m), np.uint8))
              for sample in sequence if sample.points_m is not None]
    write_sequence(config.data / "walks" / "0001", sequence, clouds, area="touristy", night=False)
    write_splits(config.data, "labels 2", {"train": ["walks/0001"]})
    scene = config.data / "val" / "walk"
    scene.mkdir(parents=True)
    save_rig(samples[0].rig, scene / "rig.yaml")
    write_sample(scene, samples[0])
    (scene.parent / "split.yaml").write_text(yaml.safe_dump({
        "version": "sim 1", "content_hash": "abc", "taxonomy": "sidewalk14",
        "scenes": [{"name": "walk", "frames": 1}]}))
    return config.data


def test_a_folder_may_hold_labelled_and_simulated_splits(config: TrainingConfig, labelled: Path) -> None:
    summary = train(config, console=QUIET)
    assert summary["data"] == {
        "train": {"version": "labels 2", "content_hash": open_split(labelled, "train").content_hash, "samples": 4},
        "val": {"version": "sim 1", "content_hash": "abc", "samples": 1}}
    assert {"depth", "semantics", "trajectory"} <= summary["losses"].keys()
    assert load_network(config.output / MODEL)[1]["data"] == summary["data"]
    with pytest.raises(DatasetError, match="no split 'walks'; there are: train, val"):
        train(replace(config, train_split="walks"), console=QUIET)


def test_labelled_samples_teach_what_the_samples_they_were_written_from_teach(
    config: TrainingConfig, labelled: Path, samples: Sequence[Sample]
) -> None:
    """Ranges come from the scan, which has a return in every third pixel; ways are kept, the rest is the same."""
    rng = np.random.default_rng
    read = open_split(labelled, "train")
    for k, sample in enumerate(samples):
        one, other = (make_item(each, config.network, NO_AUGMENTATION, rng(0)) for each in (sample, read[k]))
        for name in ("labels", "visible", "semantics", "rows", "bins"):
            np.testing.assert_array_equal(one[name], other[name])
        np.testing.assert_array_equal(one["waypoints"], other["waypoints"])
        measured = other["depth"] >= 0
        assert measured.sum() > 0.4 * (one["depth"] >= 0).sum()
        assert (np.abs(one["depth"] - other["depth"])[measured] <= 1).mean() > 0.9


def test_images_without_classes_cost_nothing(config: TrainingConfig, samples: Sequence[Sample]) -> None:
    bare = [replace(sample, semantics={}) for sample in samples]
    summary = train_on(replace(config, rays=8, loss=LossConfig(consistency=1.0)), bare, samples[:1], console=QUIET)
    assert summary["losses"]["semantics"] == 0
    assert summary["losses"]["consistency"] == 0
    assert summary["losses"]["occupancy"] > 0


def test_resuming_a_finished_training_says_so_and_changes_nothing(
    config: TrainingConfig, samples: Sequence[Sample]
) -> None:
    summary = train_on(config, samples, samples[:1], console=QUIET)
    before = (config.output / CHECKPOINT).stat().st_mtime_ns
    said = io.StringIO()
    again = train_on(config, samples, samples[:1], resume=True, console=Console(file=said))
    assert "is finished: 6 steps" in said.getvalue()
    assert again == json.loads(json.dumps(summary))
    assert (config.output / CHECKPOINT).stat().st_mtime_ns == before


def test_a_checkpoint_of_another_architecture_is_refused_with_what_differs(
    config: TrainingConfig, samples: Sequence[Sample]
) -> None:
    train_on(config, samples, samples[:1], console=QUIET)
    wider = replace(config, network=replace(config.network, neck_channels=24, bev_channels=(12,)))
    with pytest.raises(TrainingError) as caught:
        train_on(wider, samples, samples[:1], resume=True, console=QUIET)
    assert "network.neck_channels 16, not 24; network.bev_channels [12, 16], not [12]" in str(caught.value)
    assert "name another output folder" in str(caught.value)


def test_a_grid_larger_than_the_networks_is_cut(config: TrainingConfig, samples: Sequence[Sample]) -> None:
    half = VoxelGridSpec((0, -1, -1), (2, 1, 1), 0.25)
    lift = VoxelGridSpec((0, -1, -0.6), (2, 1, 0.6), (0.25, 0.25, 0.3))
    config = replace(config, network=replace(config.network, output_grid=half, lift_grid=lift))
    summary = train_on(config, samples, samples, console=QUIET)
    assert summary["validation"]["samples"] == 2
    cut = OnGrid(samples, half)[0]
    assert np.array_equal(cut.labels, samples[0].labels[:8, 4:12])
    assert OnGrid(samples, samples[0].spec)[0] is samples[0]
