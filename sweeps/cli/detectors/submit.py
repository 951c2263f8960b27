"""`birdclef submit`: writes a submission file for soundscapes, complete, within the time that there is."""

import argparse
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birdclef_core.errors import InputError
from sweeps.cli.detectors.model import MODEL_HELP, add_calibration_option, add_model_options, load_model
from sweeps.cli.detectors.progress import shown_progress
from sweeps.cli.parser import Parser
from sweeps.wording import counted, format_duration

if TYPE_CHECKING:  # torch takes seconds to import: --help is printed before that
    from birdclef_core.inference.submission.job import Submission
    from birdclef_core.inference.submission.scoring import SubmissionScores

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600}
SHOWN = 5
"""Species that a message names."""


def add_submit_command(commands: Any) -> None:
    """Add the command to the sub-parsers of `birdclef`."""
    parser: Parser = commands.add_parser("submit", help="write a submission file for soundscapes")
    parser.add_options_flag()
    parser.add_quiet_flag()
    parser.description = (
        "Writes a row for each window of 5 s and a column for each species, as BirdCLEF wants it. Every row is always written: what could "
        "not be heard gets a score that is said. The same command continues a run that was stopped. Exit code 1 if a file could not be read "
        "or there was not enough time."
    )
    parser.add_argument("--model", required=True, metavar="REF", help=MODEL_HELP)
    parser.add_argument(
        "--soundscapes",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder with the soundscapes; it may be empty with --sample",
    )
    parser.add_argument(
        "--sample", type=Path, metavar="CSV", help="a sample submission: its rows and columns are written, in its order"
    )
    parser.add_argument(
        "--rows",
        choices=("sample", "audio"),
        default="sample",
        help="audio: take only the columns from the sample, and write a row for every whole window of the audio",
    )
    parser.add_argument(
        "--time-limit",
        type=duration_argument,
        metavar="TIME",
        help="such as 120m: drop models, and in the end rows, so that all is written within this time (default: no limit)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR|CSV",
        help="also score the submission: a data folder with labelled soundscapes, or a table of labels of --soundscapes",
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("submission.csv"), metavar="CSV", help="default submission.csv")
    add_calibration_option(parser, "for post-processing")
    add_model_options(parser)
    parser.set_defaults(run=_submit)


def duration_argument(text: str) -> float:
    """Read a time such as `120m`, `2h` or `90s` for argparse, in seconds; it must be above 0 and have a unit."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNIT_S[found[2]] if found else 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 120m, 2h or 90s")
    return seconds


def _submit(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    if arguments.rows == "audio" and arguments.sample is None:
        raise InputError("--rows audio takes the columns from a sample, so it needs --sample CSV.")
    return run_submit(arguments, started)


def run_submit(arguments: argparse.Namespace, started: float) -> int:
    """Make the submission that the arguments ask for, print what came of it, and return the exit code."""
    from birdclef_core.inference.run.labels import read_labels
    from birdclef_core.inference.submission.job import SubmissionTask, make_submission
    from birdclef_core.inference.submission.scoring import score_submission

    # Labels that cannot be used are refused before hours of work.
    labels = None if arguments.labels is None else read_labels(arguments.labels, arguments.soundscapes)
    predictor = load_model(arguments, calibration=arguments.calibration)
    detector = predictor.detector
    print(f"Model {detector.model_id[:16]}: {len(detector.species)} species, {counted(len(detector.members), 'network')}.")
    task = SubmissionTask(
        predictor=predictor,
        soundscapes=arguments.soundscapes,
        sample=arguments.sample,
        rows_of_audio=arguments.rows == "audio",
        out=arguments.out,
        limit_s=arguments.time_limit,
        started=started,
        say=lambda line: print(line, flush=True),
    )
    with shown_progress(quiet=arguments.quiet) as progress:
        made = make_submission(task, progress)
    _say(made, task.out, len(detector.members), time.monotonic() - started)
    if labels is not None:
        print(scores_text(score_submission(task.out, labels)))
    return 1 if made.unreadable or made.is_out_of_time else 0


def scores_text(scores: "SubmissionScores") -> str:
    """Return what a submission scored, on one line."""
    figures = scores.figures
    return (
        f"Scored on {counted(scores.num_rows, 'labelled window')} of {counted(scores.num_files, 'file')} with {scores.num_species} species: "
        f"macro AUROC {figures['auroc']:.4f}, cmAP {figures['cmap']:.4f}, padded cmAP {figures['cmap_pad5']:.4f}."
    )


def _say(made: "Submission", out: Path, num_members: int, took_s: float) -> None:
    from birdclef_core.inference.run.job import unreadable_lines
    from birdclef_core.inference.submission.members import members_file

    known = f" ({made.num_known} of them by an earlier run)" if made.num_known else ""
    print(
        f"{counted(made.num_files, 'file')} heard{known}: {format_duration(made.heard_s)} of audio in {format_duration(took_s)}."
        if made.num_files
        else "No audio was heard."
    )
    counts = made.scored.counts
    if set(counts) - {num_members}:
        who = ", ".join(f"{counted(files, 'file')} by the first {count}" for count, files in counts.items())
        print(f"Not all files were scored by all {num_members} networks: {who}. {members_file(out)} names them.", file=sys.stderr)
    for scale in made.scored.scales:
        print(
            f"  Scores of the first {scale.num_members} were brought to the scale of the others by {counted(scale.num_windows, 'window')} that "
            "both heard."
            if scale.num_windows
            else f"  Scores of the first {scale.num_members} are on a scale of their own, as no windows were heard in both ways: they may rank "
            "too high or too low among the others.",
            file=sys.stderr,
        )
    if made.unknown_species:
        names = ", ".join(made.unknown_species[:SHOWN]) + (", ..." if len(made.unknown_species) > SHOWN else "")
        print(
            f"Warning: the model does not know {len(made.unknown_species)} of the species ({names}); their score is {made.constant:.6g} in "
            "every row.",
            file=sys.stderr,
        )
    if made.unheard:
        score = "the mean of a species' other rows" if made.unheard_score is None else f"{made.unheard_score:.6g}"
        first, last = made.unheard[0], made.unheard[-1]
        print(
            f"Warning: {len(made.unheard):,} of {made.num_rows:,} rows were not heard ({first} to {last}); their score is {score}.",
            file=sys.stderr,
        )
    if made.is_out_of_time:
        print("The time was over before all was heard. The same command with more time goes on from here.", file=sys.stderr)
    if made.ignored:
        print(f"{counted(len(made.ignored), 'file')} of audio not heard, as no row is of them, such as {made.ignored[0]}.")
    for what, items in (("heard as far as possible, because of damage", made.damaged), ("could not be read", made.unreadable)):
        if items:
            print(f"{counted(len(items), 'file')} {what}:", file=sys.stderr)
            print("\n".join(unreadable_lines(items)), file=sys.stderr)
    print(f"Submission: {out}, {counted(made.num_rows, 'row')}.")
