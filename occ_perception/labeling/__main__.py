"""`occ-perception label run|score|finetune`: label recordings, show how good labels are, fine-tune the segmenter."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from occ_perception.calibration import load_rig
from occ_perception.datasets.sidewalk3d import AREAS
from occ_perception.errors import ConfigurationError, OccPerceptionError
from occ_perception.labeling.fleet import run_fleet
from occ_perception.labeling.pool import LocalPool, RayPool
from occ_perception.labeling.report import write_report
from occ_perception.labeling.scene_job import Status
from occ_perception.labeling.settings import LabelSettings, load_settings, settings_from_dict
from occ_perception.labeling.sources import sources_of
from occ_perception.labeling.summary import outcome_line, outcome_table, quality_table, read_reports
from occ_perception.ros.environment import rig_file

SIGNAL_STATUS = 128
"""A shell adds the signal's number to it."""
FAILED_STATUS = 75
"""`EX_TEMPFAIL` of sysexits.h: scenes failed by no fault of theirs; repeating the command may label them."""

main = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                   help="From raw recordings to semantic occupancy ground truth.")


@main.command()
def run(
    sources: Annotated[list[Path], typer.Argument(help="bags, and folders of simulated scenes such as a split")],
    out: Annotated[Path, typer.Argument(help="folder for the labels, in the Sidewalk3D layout")],
    settings: Annotated[Path | None, typer.Option(help="YAML file; what it leaves out has defaults")] = None,
    segmenter: Annotated[str | None, typer.Option(
        help="`simulated` (scenes with truth), or a folder of SAM3 weights; goes before the settings file")] = None,
    finetuned: Annotated[Path | None, typer.Option(help="folder of fine-tuned SAM3 weights, for two passes")] = None,
    rig: Annotated[str | None, typer.Option(help="of the bags: a file, or the name of a shipped rig")] = None,
    area: Annotated[str | None, typer.Option(help=f"of the bags: {', '.join(AREAS)}")] = None,
    night: Annotated[bool, typer.Option("--night", help="the bags were recorded at night")] = False,
    boxes: Annotated[bool, typer.Option(
        help="boxes of things are known in simulated scenes, as by a perfect tracker")] = True,
    topic: Annotated[list[str] | None, typer.Option(
        help="SENSOR=TOPIC of the bags, where not the default; repeatable")] = None,
    split: Annotated[str, typer.Option(help="split of the data set that takes the scenes")] = "train",
    workers: Annotated[int, typer.Option(min=1, help="processes on this machine")] = 1,
    ray: Annotated[str | None, typer.Option(
        help="address of a Ray cluster to work instead: HOST:PORT, or `auto`")] = None,
) -> None:
    """Label every scene of SOURCES into the folder OUT; what is done already is not made again."""
    with _errors() as console:
        chosen = _settings(settings, segmenter, finetuned)
        found = sources_of(sources, rig=None if rig is None else load_rig(rig_file(rig)), area=area, night=night,
                           boxes=boxes, topics=_topics(topic or []))
        with LocalPool(workers) if ray is None else RayPool(ray) as pool:
            result = run_fleet(found, out, chosen, pool, console=console, split=split)
        if result.kept or result.having(Status.done):
            console.print(quality_table(read_reports(out), f"labels in {out}, scores in percent"))
            page = write_report(out, result.outcomes)
            console.print(f"report: {page}", soft_wrap=True, highlight=False)
        if len(result.having(Status.done)) < len(result.outcomes):
            console.print(outcome_table(result))
        console.print(outcome_line(result), soft_wrap=True, highlight=False)
        if result.having(Status.failed):
            raise typer.Exit(FAILED_STATUS)
        if not result.kept and not result.having(Status.done):
            raise typer.Exit(1)


@main.command()
def score(out: Annotated[Path, typer.Argument(help="folder of labelled scenes")]) -> None:
    """Show the quality of labels, from the reports of their scenes."""
    with _errors() as console:
        console.print(quality_table(read_reports(out), f"labels in {out}, scores in percent"))


@main.command()
def finetune(
    weights: Annotated[Path, typer.Argument(help="folder of the released SAM3 weights")],
    train: Annotated[Path, typer.Argument(help="annotations in COCO's format, beside their images")],
    val: Annotated[Path, typer.Argument(help="the same, of other robots")],
    output: Annotated[Path, typer.Argument(help="folder for checkpoint, best model and summary")],
    epochs: Annotated[int, typer.Option(min=1, help="passes over the training images")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="images in memory at once")] = 2,
    device: Annotated[str, typer.Option(help="of torch: cpu or cuda")] = "cuda",
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint in OUTPUT")] = False,
) -> None:
    """Fine-tune SAM3 on annotated images (needs the extra `label`); several processes by torchrun."""
    from occ_perception.labeling.segmenters.finetune import FinetuneSettings
    from occ_perception.labeling.segmenters.finetune import finetune as fine_tune

    with _errors() as console:
        fine_tune(FinetuneSettings(weights=weights, train=train, val=val, output=output, epochs=epochs,
                                   batch_size=batch_size, device=device),
                  resume=resume, say=lambda text: console.print(text, highlight=False))


@contextmanager
def _errors() -> Iterator[Console]:
    """Where to print to; errors of ours are one message and exit status 1, an interrupt 130."""
    console = Console()
    try:
        yield console
    except KeyboardInterrupt as error:
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(SIGNAL_STATUS + signal.SIGINT) from error
    except OccPerceptionError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _settings(path: Path | None, segmenter: str | None, finetuned: Path | None) -> LabelSettings:
    """The settings file with the segmenter of the command line."""
    content: dict[str, Any] = {} if path is None else load_settings(path)
    if segmenter == "simulated":
        if (content.get("segmenter") or {}).get("kind") != "simulated":
            content["segmenter"] = {"kind": "simulated"}
    elif segmenter is not None:
        content["segmenter"] = {"kind": "sam3", "base": segmenter}
    if finetuned is not None:
        content["segmenter"] = {**(content.get("segmenter") or {}), "finetuned": str(finetuned)}
    return settings_from_dict(content, str(path or "label run"))


def _topics(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if faults := [f"{name!r} is not SENSOR=TOPIC" for name, separator, _ in pairs if not separator]:
        raise ConfigurationError(faults, where="--topic")
    return {sensor: topic for sensor, _, topic in pairs}


if __name__ == "__main__":
    main()
