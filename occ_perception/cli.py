"""`occ-perception`: every command imports what it needs only when it runs, so that `--help` is quick everywhere."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from occ_perception.errors import OccPerceptionError, RecordingError

if TYPE_CHECKING:
    from occ_perception.calibration import Rig
    from occ_perception.replay import Evaluation

ERROR_STATUS = 2
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
rig_app = typer.Typer(no_args_is_help=True, help="Rigs: check calibrations with pictures, convert them.")
bag_app = typer.Typer(no_args_is_help=True, help="Bags: look into them, make them from files or from simulation.")
engine_app = typer.Typer(no_args_is_help=True, help="Models: check that they load and how fast they run.")
app.add_typer(rig_app, name="rig")
app.add_typer(bag_app, name="bag")
app.add_typer(engine_app, name="engine")


class Device(str, Enum):
    """Where to infer."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "tensorrt"


RigOption = Annotated[str, typer.Option(help="Rig file, or the name of a shipped rig.")]
ModelOption = Annotated[Path | None, typer.Option(help="Model folder. Default: the shipped models/walkocc_lite.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to infer; one asked for by name is obtained or refused.")]
VariantOption = Annotated[str | None, typer.Option(help="Variant of the model, such as fp32 or int8.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads of one operator. Default: one per core.")]
OutOption = Annotated[Path, typer.Option(help="Folder for the report.")]
WorstOption = Annotated[int, typer.Option(min=1, max=50, help="Number of worst frames in the report.")]
TopicOption = Annotated[list[str] | None, typer.Option(help="SENSOR=TOPIC, where not the default; repeatable.")]


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
    the_rig, manifest = _rig(rig), load_manifest(_model(model))
    engine = load_engine(manifest, device=device.value, variant=variant, allow_cpu=device is Device.auto,
                         threads=threads)
    with _progress(console, "replaying") as tell:
        evaluation = replay_bag(bag, the_rig, engine, manifest, truth_bag=truth, topics=_pairs(topic, "--topic"),
                                limit=limit, worst=worst, tell=tell)
    _report(evaluation, the_rig, out, console, f"Replay of {bag.name}")


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

    console, the_rig = Console(), _rig(rig)
    manifest = None if model is None else load_manifest(model)
    with _progress(console, "scoring") as tell:
        evaluation = score_outputs(outputs, truth, the_rig, manifest=manifest, voxels_topic=voxels,
                                   trajectory_topic=trajectory, worst=worst, tell=tell)
    _report(evaluation, the_rig, out, console, f"Outputs of the node on {truth.name}")


@app.command()
def demo(
    bag: Annotated[Path | None, typer.Option(help="Recording with truth. Default: the shipped sample.")] = None,
    rig: RigOption = "sidewalk_wheeled", model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="Folder for recording, logs and report.")] = Path("out/demo"),
) -> None:
    """Play a recording to a real perception_node, record what it answers, score it and show it (needs ROS 2)."""
    from occ_perception.ros.demo import run_demo

    run_demo(bag, _rig_file(rig), _model(model), out, Console())


@app.command()
def bench(
    bag: Annotated[Path | None, typer.Option(help="Recording for the node. Default: the shipped sample.")] = None,
    rig: RigOption = "sidewalk_wheeled", model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("out/bench.json"),
    seconds: Annotated[float, typer.Option(min=5.0, help="How long the node is fed.")] = 60.0,
) -> None:
    """Measure every figure that the project promises, on this machine (needs ROS 2)."""
    from occ_perception.ros.bench import run_bench

    run_bench(bag, _rig_file(rig), _model(model), out, seconds=seconds, console=Console())


@app.command()
def simulate(
    split: Annotated[str, typer.Argument(
        help="Name of a split, such as train, val or test; a wrong one lists them all.")],
    root: Annotated[Path, typer.Option(help="Folder that holds the splits; this one goes into ROOT/SPLIT.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="At most about so many frames (whole scenes).")] = None,
) -> None:
    """Make a simulated split as a training set; what is there already is kept."""
    _require("embreex")
    from occ_perception.simulation.generate import generate
    from occ_perception.simulation.splits import get_split

    generate(get_split(split), root, _shipped("calibration"), workers, limit, Console())


_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=_PASS_ON, add_help_option=False)
def train(context: typer.Context) -> None:
    """Train a network on simulated or labelled splits; `train --help` lists the kinds (needs the extra `train`)."""
    _pass_on(context, "occ_perception.training.__main__")


@app.command(context_settings=_PASS_ON, add_help_option=False)
def export(context: typer.Context) -> None:
    """Checkpoint to a model folder with graphs, manifest and scores; `export --help` lists the options."""
    _pass_on(context, "occ_perception.export.__main__")


@app.command(context_settings=_PASS_ON, add_help_option=False)
def experiment(context: typer.Context) -> None:
    """Repeat a table of the paper on the simulated benchmark; `experiment --help` lists tables and options."""
    _pass_on(context, "occ_perception.training.experiments.__main__")


@app.command(context_settings=_PASS_ON, add_help_option=False)
def label(context: typer.Context) -> None:
    """Label recordings: occupancy ground truth from bags; `label --help` lists the commands."""
    _pass_on(context, "occ_perception.labeling.__main__")


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


@rig_app.command("check")
def rig_check(
    rig: Annotated[str, typer.Argument(help="Rig file, or the name of a shipped rig.")],
    images: Annotated[list[str] | None, typer.Option(help="CAMERA=FILE, or folder of CAMERA.jpg; repeatable.")] = None,
    cloud: Annotated[list[str] | None, typer.Option(help="LIDAR=FILE (.npz, .npy, .pcd, .bin); repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/rig"),
) -> None:
    """Check a rig file, and draw LiDAR points (by range) and the grid's ground into its images."""
    from occ_perception.recordings.cloud_files import SUFFIXES
    from occ_perception.replay import rig_files

    console, the_rig = Console(), _rig(rig)
    cameras, lidars = [c.name for c in the_rig.cameras], [x.name for x in the_rig.lidars]
    pictures = rig_files.check_pictures(
        the_rig, rig_files.files_by_sensor(images, cameras, rig_files.IMAGE_SUFFIXES),
        rig_files.files_by_sensor(cloud, lidars, SUFFIXES))
    console.print(rig_files.rig_table(the_rig, pictures))
    if pictures:
        rig_files.save_pictures(pictures, out)
        console.print(f"pictures: {out}\nThe green lattice (1 m) must lie on the ground, points on what they hit.")


@rig_app.command("convert")
def rig_convert(
    kind: Annotated[str, typer.Argument(help="camera_info, kalibr, kitti or nuscenes.")],
    source: Annotated[list[str], typer.Argument(help="FILE, or SENSOR=FILE for each camera_info.")],
    out: Annotated[Path, typer.Option(help="Rig file to write.")],
    pose: Annotated[list[str] | None, typer.Option(
        help="SENSOR=x,y,z,roll,pitch,yaw on the base (metres, degrees; pitch down is positive); repeatable.")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH of the images, for kitti.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the rig. Default: that of the file.")] = None,
) -> None:
    """Make a rig file from the calibration files of other tools."""
    from occ_perception.calibration import save_rig
    from occ_perception.replay.rig_files import convert

    files = {key: Path(path) for key, path in _pairs(source, "SOURCE", default="all").items()}
    if missing := [str(path) for path in files.values() if not path.is_file()]:
        raise RecordingError("does not exist", where=", ".join(missing))
    image_size = None
    if size is not None:
        height, _, width = size.partition("x")
        if not (height.isdigit() and width.isdigit()):
            raise typer.BadParameter(f"{size!r} is not HEIGHTxWIDTH", param_hint="--size")
        image_size = int(height), int(width)
    rig = convert(kind, files, _pairs(pose, "--pose"), name or out.stem, image_size)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_rig(rig, out)
    Console().print(f"{len(rig.cameras)} cameras, {len(rig.lidars)} LiDARs: {out}. Look at it with `rig check`.")


@rig_app.command("health", context_settings=_PASS_ON, add_help_option=False)
def rig_health(context: typer.Context) -> None:
    """Judge whether cameras and LiDARs agree, and refine where cameras look; `rig health --help` lists the options."""
    _pass_on(context, "occ_perception.labeling.rig_health")


@rig_app.command("calibrate", context_settings=_PASS_ON, add_help_option=False)
def rig_calibrate(context: typer.Context) -> None:
    """Calibrate a camera and its place beside a LiDAR from a board; `rig calibrate --help` lists the options."""
    _pass_on(context, "occ_perception.labeling.rig_calibrate")


@bag_app.command("info")
def bag_info(bag: Annotated[Path, typer.Argument(help="Recording: rosbag2 folder, .mcap or .db3 file.")]) -> None:
    """List the topics of a bag with types, numbers and rates."""
    from occ_perception.recordings import BagReader
    from occ_perception.replay.terminal import bag_table

    with BagReader(bag) as reader:
        Console().print(bag_table(reader))


@bag_app.command("view")
def bag_view(
    bag: Annotated[Path, typer.Argument(help="Recording with voxel grids: outputs of a node, or ground truth.")],
    out: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("out/view.html"),
    topic: Annotated[str | None, typer.Option(help="Topic of the grids, where there are several.")] = None,
    frames: Annotated[int, typer.Option(min=1, max=50, help="Number of grids, evenly spread.")] = 5,
) -> None:
    """Write a page with the voxel grids of a bag in 3D, to be turned, zoomed and slid through."""
    _require("plotly")
    from occ_perception.replay.viewer import grids_of, write_view

    grids = grids_of(bag, topic, frames)
    write_view(grids, out)
    Console().print(f"{len(grids)} grids: {out}")


@bag_app.command("create")
def bag_create(
    output: Annotated[Path, typer.Argument(help="Folder, or .mcap file to make.")],
    rig: Annotated[str, typer.Option(help="Rig file, or the name of a shipped rig.")],
    images: Annotated[list[str], typer.Option(help="CAMERA=FILE or CAMERA=FOLDER; repeatable.")],
    cloud: Annotated[list[str] | None, typer.Option(help="LIDAR=FILE or LIDAR=FOLDER; repeatable.")] = None,
    rate: Annotated[float, typer.Option(help="Instants per second.")] = 10.0,
    repeat: Annotated[int, typer.Option(min=1, help="How often the series is told.")] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bag.")] = False,
) -> None:
    """Make a bag from images, clouds and a rig; the n-th files of all sensors are one instant."""
    from occ_perception.recordings.cloud_files import SUFFIXES
    from occ_perception.recordings.create import create_bag
    from occ_perception.replay.rig_files import IMAGE_SUFFIXES, files_by_sensor

    the_rig = _rig(rig)
    counts = create_bag(
        output, the_rig, files_by_sensor(images, [c.name for c in the_rig.cameras], IMAGE_SUFFIXES),
        files_by_sensor(cloud, [x.name for x in the_rig.lidars], SUFFIXES),
        rate_hz=rate, repeat=repeat, overwrite=overwrite)
    _counts(output, counts)


@bag_app.command("simulate")
def bag_simulate(
    output: Annotated[Path, typer.Argument(help="Folder, or .mcap file to make.")],
    rig: RigOption = "sidewalk_wheeled",
    seed: Annotated[int, typer.Option(min=0, help="Of the world.")] = 0,
    district: Annotated[str, typer.Option(help="touristy, residential or commercial.")] = "residential",
    embodiment: Annotated[str, typer.Option(help="wheeled, quadruped, wheelchair or humanoid.")] = "wheeled",
    night: Annotated[bool, typer.Option(help="Lamps and headlights instead of the sun.")] = False,
    duration: Annotated[float, typer.Option(min=0.5, help="Length of the bag, seconds.")] = 20.0,
    image_hz: Annotated[float, typer.Option(min=0.5, help="Images per second.")] = 10.0,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bag.")] = False,
) -> None:
    """Let a simulated robot drive, and write what its sensors see and what is true."""
    _require("embreex")
    from occ_perception.simulation.bags import BagSettings, write_bag
    from occ_perception.simulation.scene import DISTRICTS, EMBODIMENTS
    from occ_perception.simulation.world import make_world

    for value, known, option in ((district, DISTRICTS, "--district"), (embodiment, EMBODIMENTS, "--embodiment")):
        if value not in known:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}", param_hint=option)
    world = make_world(seed, district, night, embodiment, duration + 6.0)  # type: ignore[arg-type]
    settings = BagSettings(duration_s=duration, image_hz=image_hz)
    _counts(output, write_bag(world, _rig(rig), output, settings, overwrite=overwrite, progress=True))


@engine_app.command("check")
def engine_check(
    model: Annotated[Path | None, typer.Argument(help="Model folder. Default: models/walkocc_lite.")] = None,
    device: DeviceOption = Device.auto, variant: VariantOption = None, threads: ThreadsOption = None,
    runs: Annotated[int, typer.Option(min=1, help="Number of timed runs.")] = 30,
) -> None:
    """Check hashes, shapes and provider of a model, and time it on empty images."""
    from occ_perception.engines import load_engine, load_manifest
    from occ_perception.replay.engine_check import engine_table

    manifest = load_manifest(_model(model))
    engine = load_engine(manifest, device=device.value, variant=variant, allow_cpu=device is Device.auto,
                         threads=threads)
    Console().print(engine_table(engine, runs))


# --- what commands share ---


def _shipped(relative: str) -> Path:
    from occ_perception.ros.environment import shipped

    path: Path = shipped(relative)
    return path


def _rig_file(text: str) -> Path:
    from occ_perception.ros.environment import rig_file

    path: Path = rig_file(text)
    return path


def _rig(text: str) -> Rig:
    from occ_perception.calibration import load_rig

    return load_rig(_rig_file(text))


def _model(path: Path | None) -> Path:
    return path if path is not None else _shipped("models/walkocc_lite")


def _pairs(given: Sequence[str] | None, option: str, default: str | None = None) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping; a text without a name belongs to `default` where there is one."""
    pairs = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not separator and default is None:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
        pairs[name if separator else str(default)] = value if separator else text
    return pairs


@contextmanager
def _progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _report(evaluation: Evaluation, rig: Rig, out: Path, console: Console, title: str) -> None:
    from occ_perception.replay import write_report
    from occ_perception.replay.terminal import show

    with console.status("drawing the report"):
        page = write_report(evaluation, rig, out, title=title)
    show(evaluation, console)
    console.print(f"report: {page}", soft_wrap=True)


def _counts(path: Path, counts: dict[str, int]) -> None:
    table = Table(title=str(path))
    table.add_column("topic")
    table.add_column("messages", justify="right")
    for topic, count in sorted(counts.items()):
        table.add_row(topic, str(count))
    Console().print(table)


def _require(package: str) -> None:
    """Raise ModuleNotFoundError before any work is done, unless the optional package is there."""
    importlib.import_module(package)


def _pass_on(context: typer.Context, module: str) -> None:
    """Run another module's command with all arguments of this one; its options are written down only there."""
    command: Callable[..., Any] | typer.Typer = importlib.import_module(module).main
    if isinstance(command, typer.Typer):
        sub = command
    else:
        sub = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        sub.command()(command)
    try:
        sub(args=context.args, prog_name=context.command_path)
    except SystemExit as end:
        # Statuses that say more than "failed" stay: 128 + signal, and 75 for what can be gone on with.
        more = isinstance(end.code, int) and end.code > ERROR_STATUS
        raise SystemExit(end.code if more else ERROR_STATUS if end.code else 0) from None


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


if __name__ == "__main__":
    main()
