"""Two processes on the CPU train what one does: the same gradients, statistics and summary.

Run as a script, this file is one of those processes.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.errors import DatasetError, OccPerceptionError, TrainingError
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training import distributed
from occ_perception.training.augmentation import NO_AUGMENTATION
from occ_perception.training.checkpoint import load_network
from occ_perception.training.loop import TrainingConfig, WalkOccLoss, WalkOccTask, train_on
from occ_perception.training.losses import LossConfig
from occ_perception.training.runner import CHECKPOINT, seeded
from occ_perception.training.trainer import Trainer

Job = tuple[TrainingConfig, Sequence[Sample], Sequence[ImageSample]]


def one_step(job: Job) -> dict[str, Any]:
    """Gradients, statistics and losses of the first step."""
    config, samples, images = job
    trainer = Trainer(seeded(0, lambda: WalkOcc(config.network)), WalkOccLoss(config.loss), config)
    losses = trainer.train_step(*WalkOccTask(config, samples, images, samples).batch(0))
    return {
        "losses": losses, "statistics": {name: b.clone() for name, b in trainer.network.named_buffers()},
        "gradients": {name: p.grad for name, p in trainer.network.named_parameters() if p.grad is not None},
    }


def whole_training(job: Job) -> dict[str, Any]:
    config, samples, images = job
    return train_on(config, samples, samples, images=images, console=Console(file=io.StringIO()))


class OneBreaks(Sequence[Sample]):
    """Samples of which one process cannot read more than the first few."""

    def __init__(self, samples: Sequence[Sample], reads: int) -> None:
        self.samples, self.reads = samples, reads

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        self.reads -= 1
        if distributed.rank() == 1 and self.reads < 0:
            raise DatasetError("cannot be read", where=f"tiny[{index}]")
        return self.samples[index]


def broken_training(job: Job) -> tuple[str, int]:
    """What ends a training in which the second process has no third batch, and the step of the checkpoint."""
    config, samples, images = job
    config = replace(config, output=config.output.parent / "broken", validate_every=100)
    with pytest.raises(OccPerceptionError) as caught:
        train_on(config, OneBreaks(samples, config.prior_samples + 2), samples, images=images,
                 console=Console(file=io.StringIO()))
    distributed.average(torch.zeros(1))  # the first process has written by now
    return str(caught.value), load_network(config.output / CHECKPOINT)[1]["steps"]


def unused_parameter() -> list[Any]:
    """Averages of gradients where one process has none, and where none has one."""
    own, nobodys = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    if distributed.rank() == 1:
        own.grad = torch.tensor([2.0, 4.0])
    distributed.average_gradients([own, nobodys])
    return [own.grad, nobodys.grad]


def main(folder: Path) -> None:
    """What one of the processes does."""
    torch.set_num_threads(1)
    job = pickle.loads((folder / "job.pickle").read_bytes())
    with distributed.process_group("cpu"):
        answers = {"step": one_step(job), "unused": unused_parameter(), "summary": whole_training(job),
                   "broken": broken_training(job)}
        torch.save(answers, folder / f"{distributed.rank()}.pt")


@pytest.fixture(scope="module")
def job(small: WalkOccConfig, samples: Sequence[Sample], image_samples: Sequence[ImageSample],
        tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Three slots for two processes: unequal shares, of which one has no 2D-only image."""
    folder = tmp_path_factory.mktemp("processes")
    config = TrainingConfig(
        data=folder, output=folder / "two", network=small, steps=4, batch_size=2, images_per_batch=1, rays=8,
        loss=LossConfig(consistency=1.0), augmentation=NO_AUGMENTATION, validate_every=2, validation_samples=4,
        prior_samples=4, threads=1, average=0.5,
    )
    return config, samples, image_samples


@pytest.fixture(scope="module")
def two(job: Job) -> list[dict[str, Any]]:
    """The answers of two processes."""
    folder = job[0].data
    (folder / "job.pickle").write_bytes(pickle.dumps(job))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    about = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(folder)], env={**os.environ, **about, "RANK": str(rank)},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_gradients_and_statistics_are_those_of_the_whole_batch(job: Job, two: list[dict[str, Any]]) -> None:
    alone = one_step(job)
    for answer in two:
        assert answer["step"]["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        for kind in ("gradients", "statistics"):
            expected, got = alone[kind], answer["step"][kind]
            assert got.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-4 * float(value.abs().max()) + 1e-7,
                                           msg=lambda text, name=name: f"{name}: {text}")


def test_a_parameter_that_one_process_did_not_use_gets_half_and_one_that_none_used_nothing(
    two: list[dict[str, Any]]
) -> None:
    for answer in two:
        used, unused = answer["unused"]
        assert used.tolist() == [1.0, 2.0]
        assert unused is None


def test_data_that_one_process_cannot_read_end_all_and_lose_no_step(two: list[dict[str, Any]]) -> None:
    (first, first_step), (second, second_step) = (answer["broken"] for answer in two)
    assert "cannot be read" in second
    assert "another process has no batch" in first
    assert first_step == second_step == 2


def test_all_processes_give_the_summary_that_one_process_gives(job: Job, two: list[dict[str, Any]]) -> None:
    config = job[0]
    alone = whole_training((replace(config, output=config.output.parent / "one"), *job[1:]))
    first, second = (answer["summary"] for answer in two)
    assert first["validation"].keys() == second["validation"].keys()
    assert first["class_offsets"] == second["class_offsets"]
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-2)
    assert (first["steps"], first["samples"], first["image_samples"]) == (4, 8, 4)
    for key in ("iou", "miou", "waypoint_error_m"):
        assert first["validation"][key] == pytest.approx(alone["validation"][key], abs=0.01)
    written = {path.name for path in config.output.iterdir()}
    assert written == {path.name for path in (config.output.parent / "one").iterdir()}


def test_one_process_alone_needs_no_group() -> None:
    value, parameter = torch.tensor(3), nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    distributed.average_gradients([parameter])
    assert (distributed.rank(), distributed.process_count()) == (0, 1)
    assert distributed.average(value) is value
    assert parameter.grad.tolist() == [1.0]
    assert distributed.from_first(lambda: 5) == 5
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    distributed.synchronise(network)
    assert type(network[1]) is nn.BatchNorm2d


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(TrainingError, match="cannot use the device 'quantum'"):
        distributed.own_device("quantum")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
