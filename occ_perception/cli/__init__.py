"""`occ-perception`: every command imports what it needs only when it runs, so that `--help` is quick everywhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from occ_perception.cli.bags import bag_app
from occ_perception.cli.engines import engine_app
from occ_perception.cli.rigs import rig_app
from occ_perception.cli.shared import (
    ERROR_STATUS,
    PASS_ON,
    Device,
    DeviceOption,
    ModelOption,
    OutOption,
    RigOption,
    ThreadsOption,
    TopicOption,
    VariantOption,
    WorstOption,
    model_folder,
    pairs,
    pass_on,
    progress_bar,
    require,
    rig_file,
    rig_of,
    shipped_file,
    write_and_show,
)
from occ_perception.errors import OccPerceptionError

EXTRAS = {
    **dict.fromkeys(("torch", "safetensors", "onnx", "onnxscript", "embreex"),
                    "It comes with the extra `train`: pip install 'occ_perception[train]'"),
    **dict.fromkeys(("rclpy", "occ_perception_msgs", "rosgraph_msgs", "lifecycle_msgs", "launch"),
                    "It comes with ROS 2: run `make setup` once, then `scripts/with_ros occ-perception ...`"),
    "transformers": "It comes with the extra `label`: pip install 'occ_perception[label]'",
    "plotly": "It comes with the extra `viz`: pip install 'occ_perception[viz]'",
}

app = typer.Typer(name="occ-perception", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="3D occupancy for robots on sidewalks: replay, score, train, export and check.")
app.add_typer(rig_app, name="rig")
app.add_typer(bag_app, name="bag")
app.add_typer(engine_app, name="engine")


@app.command()
def replay(
    bag: Annotated[Path, typer.Argument(help="Recording: rosbag2 folder, .mcap or .db3 file.")],
    rig: RigOption = "sidewalk_wheeled", model: ModelOption = None, out: OutOption = Path("out/replay"),
    truth: Annotated[Path | None, typer.Option(help="Recording with the truth. Default: BAG itself.")] = None,
    topic: TopicOption = None, limit: Annotated[int | None, typer.Option(min=1, help="At most so many images.")] = None,
    worst: WorstOption = 4, device: DeviceOption = Device.auto, variant: VariantOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Drive the robot's own pipeline over a bag at full speed, score it, and write a report with pictures."""
    from occ_perception.engines import load_engine, load_manifest
    from occ_perception.replay import replay_bag

    console = Console()
    the_rig, manifest = rig_of(rig), load_manifest(model_folder(model))
    engine = load_engine(manifest, device=device.value, variant=variant, allow_cpu=device is Device.auto,
                         threads=threads)
    with progress_bar(console, "replaying") as tell:
        evaluation = replay_bag(bag, the_rig, engine, manifest, truth_bag=truth, topics=pairs(topic, "--topic"),
                                limit=limit, worst=worst, tell=tell)
    write_and_show(evaluation, the_rig, out, console, f"Replay of {bag.name}")


@app.command()
def score(
    outputs: Annotated[Path, typer.Argument(help="Bag with the recorded outputs of perception_node.")],
    truth: Annotated[Path, typer.Option(help="The recording that the node was fed with, with its ground truth.")],
    rig: RigOption = "sidewalk_wheeled", out: OutOption = Path("out/score"), worst: WorstOption = 4,
    model: Annotated[Path | None, typer.Option(help="Model folder, to tell in the report how it was trained.")] = None,
    voxels: Annotated[str, typer.Option(help="Topic of the grids.")] = "/perception_node/output/voxels",
    trajectory: Annotated[str, typer.Option(help="Topic of the paths.")] = "/perception_node/output/trajectory",
) -> None:
    """Score recorded node outputs against the truth of the recording that the node was fed with."""
    from occ_perception.engines import load_manifest
    from occ_perception.replay import score_outputs

    console, the_rig = Console(), rig_of(rig)
    manifest = None if model is None else load_manifest(model)
    with progress_bar(console, "scoring") as tell:
        evaluation = score_outputs(outputs, truth, the_rig, manifest=manifest, voxels_topic=voxels,
                                   trajectory_topic=trajectory, worst=worst, tell=tell)
    write_and_show(evaluation, the_rig, out, console, f"Outputs of the node on {truth.name}")


@app.command()
def demo(
    bag: Annotated[Path | None, typer.Option(help="Recording with truth. Default: the shipped sample.")] = None,
    rig: RigOption = "sidewalk_wheeled", model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="Folder for recording, logs and report.")] = Path("out/demo"),
) -> None:
    """Play a recording to a real perception_node, record what it answers, score it and show it (needs ROS 2)."""
    from occ_perception.ros.demo import run_demo

    run_demo(bag, rig_file(rig), model_folder(model), out, Console())


@app.command()
def bench(
    bag: Annotated[Path | None, typer.Option(help="Recording for the node. Default: the shipped sample.")] = None,
    rig: RigOption = "sidewalk_wheeled", model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("out/bench.json"),
    seconds: Annotated[float, typer.Option(min=5.0, help="How long the node is fed.")] = 60.0,
) -> None:
    """Measure every figure that the project promises, on this machine (needs ROS 2)."""
    from occ_perception.ros.bench import run_bench

    run_bench(bag, rig_file(rig), model_folder(model), out, seconds=seconds, console=Console())


@app.command()
def simulate(
    split: Annotated[str, typer.Argument(
        help="Name of a split, such as train, val or test; a wrong one lists them all.")],
    root: Annotated[Path, typer.Option(help="Folder that holds the splits; this one goes into ROOT/SPLIT.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="At most about so many frames (whole scenes).")] = None,
) -> None:
    """Make a simulated split as a training set; what is there already is kept."""
    require("embreex")
    from occ_perception.simulation.generate import generate
    from occ_perception.simulation.splits import get_split

    generate(get_split(split), root, shipped_file("calibration"), workers, limit, Console())


@app.command(context_settings=PASS_ON, add_help_option=False)
def train(context: typer.Context) -> None:
    """Train a network on simulated or labelled splits; `train --help` lists the kinds (needs the extra `train`)."""
    pass_on(context, "occ_perception.training.__main__")


@app.command(context_settings=PASS_ON, add_help_option=False)
def export(context: typer.Context) -> None:
    """Checkpoint to a model folder with graphs, manifest and scores; `export --help` lists the options."""
    pass_on(context, "occ_perception.export.__main__")


@app.command(context_settings=PASS_ON, add_help_option=False)
def experiment(context: typer.Context) -> None:
    """Repeat a table of the paper on the simulated benchmark; `experiment --help` lists tables and options."""
    pass_on(context, "occ_perception.training.experiments.__main__")


@app.command(context_settings=PASS_ON, add_help_option=False)
def label(context: typer.Context) -> None:
    """Label recordings: occupancy ground truth from bags; `label --help` lists the commands."""
    pass_on(context, "occ_perception.labeling.__main__")


@app.command()
def env(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print machine, versions and settings, for a report of a bug."""
    import json

    from occ_perception.replay.about import about_machine, about_providers, about_software

    about = {"machine": about_machine(), "software": about_software(), "onnxruntime providers": about_providers()}
    if as_json:
        print(json.dumps(about, indent=1))
        return
    table = Table(show_header=False, box=None)
    for section, values in about.items():
        for name, value in values.items():
            table.add_row(section, name, str(value))
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors of ours are one message and exit status 2, without a traceback."""
    errors = Console(stderr=True)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="occ-perception")
    except OccPerceptionError as error:
        errors.print(f"[red]error:[/] {_plain(error)}", highlight=False, soft_wrap=True)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        errors.print(f"[red]error:[/] {package} is not installed. {_plain(EXTRAS[package])}", highlight=False,
                     soft_wrap=True)
    sys.exit(ERROR_STATUS)


def _plain(text: object) -> str:
    """Text that rich shall not take for markup."""
    from rich.markup import escape

    return escape(str(text))
