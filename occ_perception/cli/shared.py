"""What commands share: options, files that are named on the command line, and how results are shown."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from occ_perception.calibration import Rig
    from occ_perception.replay import Evaluation

ERROR_STATUS = 2
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Settings of a command that hands all its arguments on with `pass_on`."""


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


def shipped_file(relative: str) -> Path:
    """A file or folder that comes with the package."""
    from occ_perception.ros import environment

    path: Path = environment.shipped(relative)
    return path


def rig_file(text: str) -> Path:
    """The rig file of that path or name."""
    from occ_perception.ros import environment

    path: Path = environment.rig_file(text)
    return path


def rig_of(text: str) -> Rig:
    """The rig in the file of that path or name."""
    from occ_perception.calibration import load_rig

    return load_rig(rig_file(text))


def model_folder(path: Path | None) -> Path:
    """The folder of the model, or of the shipped one."""
    return path if path is not None else shipped_file("models/walkocc_lite")


def pairs(given: Sequence[str] | None, option: str, default: str | None = None) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping; a text without a name belongs to `default` where there is one."""
    found = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not separator and default is None:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
        found[name if separator else str(default)] = value if separator else text
    return found


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar, told with numbers of what is done and of all."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def write_and_show(evaluation: Evaluation, rig: Rig, out: Path, console: Console, title: str) -> None:
    """Write the report of an evaluation, and show its table."""
    from occ_perception.replay import write_report
    from occ_perception.replay.terminal import show

    with console.status("drawing the report"):
        page = write_report(evaluation, rig, out, title=title)
    show(evaluation, console)
    console.print(f"report: {page}", soft_wrap=True)


def show_counts(path: Path, counts: dict[str, int]) -> None:
    """Show how many messages of each topic were written."""
    table = Table(title=str(path))
    table.add_column("topic")
    table.add_column("messages", justify="right")
    for topic, count in sorted(counts.items()):
        table.add_row(topic, str(count))
    Console().print(table)


def require(package: str) -> None:
    """Raise ModuleNotFoundError before any work is done, unless the optional package is there."""
    importlib.import_module(package)


def pass_on(context: typer.Context, module: str) -> None:
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
