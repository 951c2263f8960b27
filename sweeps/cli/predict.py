"""`birdclef predict`: finds the species in recordings with a trained stage, an ensemble or a bundle."""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birdclef_core.errors import InputError
from sweeps.cli.detectors.model import MODEL_HELP, add_calibration_option, add_model_options, load_model
from sweeps.cli.detectors.progress import shown_progress
from sweeps.cli.parser import Parser
from sweeps.wording import counted, format_duration

if TYPE_CHECKING:  # torch takes seconds to import: --help is printed before that
    from birdclef_core.inference.results.selection import Selection
    from birdclef_core.inference.run.job import Outcome

FORMATS = "csv, parquet, raven, audacity, kaleidoscope"


def add_predict_command(commands: Any) -> None:
    """Add the command to the sub-parsers of `birdclef`."""
    parser: Parser = commands.add_parser("predict", help="find the species in recordings with a trained stage")
    parser.add_options_flag()
    parser.add_quiet_flag()
    parser.description = (
        "Writes which species are heard when. The same command continues a run that was stopped, and hears only files that are new or "
        "have changed; with other thresholds or formats it writes other tables without hearing anything again. Exit code 1 if a file "
        "could not be read."
    )
    parser.add_argument("audio", nargs="+", type=Path, metavar="AUDIO", help="audio files, and folders with audio at any depth")
    parser.add_argument("--model", required=True, metavar="REF", help=MODEL_HELP)
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--format", default="csv", metavar="NAMES", help=f"tables to write, with commas between them: {FORMATS} (default csv)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--threshold", type=float, metavar="X", help="least score of a detection, 0 to 1 (default 0.5)")
    which.add_argument(
        "--thresholds", type=Path, metavar="FILE", help="a CSV table with a threshold for each species: species, threshold"
    )
    which.add_argument("--top", type=int, metavar="N", help="instead: the N highest scores of each window")
    parser.add_argument("--species", type=Path, metavar="FILE", help="only these species: their codes, one per line")
    parser.add_argument(
        "--step", type=float, metavar="S", help="seconds from the start of a window to the next (default: its length, 5)"
    )
    parser.add_argument("--merge", action="store_true", help="make one detection of windows that touch, with the highest score")
    parser.add_argument(
        "--segments", type=int, default=0, metavar="N", help="also cut out the N best windows of each species, as WAV files"
    )
    parser.add_argument("--embeddings", action="store_true", help="also write the embedding of each window, as Parquet")
    add_calibration_option(parser, "for the column calibrated and for post-processing")
    parser.add_argument(
        "--smooth",
        type=float,
        metavar="W",
        help="weight of each neighbour in a window's logits, 0 to 0.33 (default: that of the calibration, else 0: off)",
    )
    parser.add_argument(
        "--peak",
        type=float,
        metavar="W",
        help="weight of a species' highest logit in the file, 0 to 1 (default: that of the calibration, else 0: off)",
    )
    parser.add_argument("--names", type=Path, metavar="FILE", help="names of the species: an eBird or BirdCLEF taxonomy (CSV)")
    add_model_options(parser)
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    if arguments.segments < 0:
        raise InputError(f"--segments >= 0 must hold, but got {arguments.segments}.")

    from birdclef_core.inference.results.formats import parse_formats
    from birdclef_core.inference.run.files import find_audio
    from birdclef_core.inference.run.job import Task, predict_files

    formats, selection = parse_formats(arguments.format), _selection(arguments)
    audio = find_audio(arguments.audio, out=arguments.out)
    predictor = load_model(arguments, calibration=arguments.calibration, names=arguments.names, embeddings=arguments.embeddings)
    detector = predictor.detector
    if arguments.step is not None:
        detector = detector.with_procedure(replace(detector.procedure, step_s=arguments.step))
        predictor = replace(predictor, detector=detector)
    unknown = selection.for_detector(detector).unknown
    if unknown:
        print(
            f"{len(unknown)} of the species in {arguments.species} are not the model's, such as {unknown[0]}: they cannot be found."
        )
    if others := sorted(set(selection.thresholds or ()) - set(detector.species)):
        print(
            f"{len(others)} of the species in {arguments.thresholds} are not the model's, such as {others[0]}: they do not count."
        )
    print(f"Model {detector.model_id[:16]}: {len(detector.species)} species; {counted(len(audio.files), 'file')} of audio.")
    task = Task(
        predictor=predictor,
        audio=audio,
        selection=selection,
        out=arguments.out,
        formats=formats,
        segments=arguments.segments,
    )
    started = time.monotonic()
    with shown_progress(quiet=arguments.quiet) as progress:
        outcome = predict_files(task, progress)
    _say(outcome, task.out, time.monotonic() - started)
    return 1 if outcome.unreadable else 0


def _selection(arguments: argparse.Namespace) -> "Selection":
    from birdclef_core.inference.results.postprocess import PostProcessing
    from birdclef_core.inference.results.selection import DEFAULT_THRESHOLD, Selection
    from birdclef_core.inference.results.species_files import read_species, read_thresholds

    given = arguments.smooth, arguments.peak
    return Selection(
        threshold=DEFAULT_THRESHOLD if arguments.threshold is None else arguments.threshold,
        thresholds=None if arguments.thresholds is None else read_thresholds(arguments.thresholds),
        top=arguments.top,
        species=None if arguments.species is None else read_species(arguments.species),
        merge=arguments.merge,
        postprocessing=None if given == (None, None) else PostProcessing(smooth=given[0] or 0.0, peak=given[1] or 0.0),
    )


def _say(outcome: "Outcome", out: Path, took_s: float) -> None:
    from birdclef_core.inference.run.job import unreadable_lines

    known = f" ({outcome.num_known} of them by an earlier run)" if outcome.num_known else ""
    print(
        f"{counted(outcome.num_files, 'file')} predicted{known}: {format_duration(outcome.heard_s)} of audio in {format_duration(took_s)}, "
        f"{counted(outcome.num_rows, 'detection')}."
    )
    if not outcome.num_rows and outcome.num_files:
        print(f"Nothing reached its threshold; the highest score was {outcome.highest:.3g}.")
    if outcome.num_segments:
        print(f"{counted(outcome.num_segments, 'window')} cut out: {out / 'segments'}")
    print(f"Results: {out}")
    if outcome.damaged:
        print(f"{counted(len(outcome.damaged), 'file')} predicted as far as possible, because of damage:", file=sys.stderr)
        print("\n".join(unreadable_lines(outcome.damaged)), file=sys.stderr)
    if outcome.unreadable:
        print(f"{counted(len(outcome.unreadable), 'file')} could not be read:", file=sys.stderr)
        print("\n".join(unreadable_lines(outcome.unreadable)), file=sys.stderr)
