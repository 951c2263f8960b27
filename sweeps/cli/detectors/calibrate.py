"""`birdclef calibrate`: turns scores into probabilities and thresholds, by labelled soundscapes or validation recordings."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birdclef_core.errors import InputError
from sweeps.cli.detectors.model import MODEL_HELP, add_model_options, load_model
from sweeps.cli.detectors.progress import shown_progress
from sweeps.cli.parser import Parser
from sweeps.options import FOLD_HELP
from sweeps.wording import counted

if TYPE_CHECKING:  # torch takes seconds to import: --help is printed before that
    from birdclef_core.ensemble.calibration.job import Calibrated
    from birdclef_core.ensemble.calibration.labelled import HeardRows, LabelledRows


def add_calibrate_command(commands: Any) -> None:
    """Add the command to the sub-parsers of `birdclef`."""
    parser: Parser = commands.add_parser(
        "calibrate", help="turn scores into probabilities and thresholds, by labelled soundscapes"
    )
    parser.add_options_flag()
    parser.add_quiet_flag()
    parser.description = (
        "Fits one slope for all species and an intercept for each, and chooses thresholds; what it says of them is cross-fitted by file. Writes "
        "calibration.json, thresholds.csv and reliability.html; a bundle also gets the calibration into it. The same command continues a run that was stopped."
    )
    parser.add_argument("model", metavar="REF", help=MODEL_HELP)
    parser.add_argument(
        "--labels",
        required=True,
        type=Path,
        metavar="DIR|CSV",
        help="a data folder with labelled soundscapes, or a table of labels in one of BirdCLEF's forms",
    )
    parser.add_argument("--soundscapes", type=Path, metavar="DIR", help="folder with the audio of the table")
    parser.add_argument(
        "--on",
        choices=("soundscapes", "recordings"),
        help="what the data folder is used for: its labelled soundscapes, or its validation recordings, of which each is mostly of one species "
        "(default: soundscapes where it has some)",
    )
    parser.add_argument("--fold", type=int, default=0, metavar="K", help=f"with recordings: {FOLD_HELP}")
    parser.add_argument(
        "--target",
        default="f1",
        metavar="f1|precision=P",
        help="what thresholds are chosen for: the best F1, or the highest recall with a precision such as precision=.9 (default f1)",
    )
    parser.add_argument(
        "--choose-postprocessing",
        action="store_true",
        help="try smoothing and file peaks, and use the best if it helps by more than its standard error, cross-fitted",
    )
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    add_model_options(parser)
    parser.set_defaults(run=_calibrate)


def _calibrate(arguments: argparse.Namespace) -> int:
    from birdclef_core.ensemble.calibration.job import calibrate, write_calibrated
    from birdclef_core.ensemble.calibration.labelled import hear_rows
    from birdclef_core.ensemble.calibration.thresholds import Target
    from birdclef_core.inference.bundle.reading import is_bundle, open_bundle, set_calibration
    from birdclef_core.inference.run.job import JOURNAL

    target = Target.parse(arguments.target)
    predictor = load_model(arguments)
    detector = predictor.detector
    rows = _rows(arguments, detector.species)
    print(
        f"Model {detector.model_id[:16]}: {len(detector.species)} species; {counted(len(rows.file_R), 'labelled row')} of "
        f"{counted(len(rows.files), 'file')}."
    )
    with shown_progress(quiet=arguments.quiet) as progress:
        heard = hear_rows(rows, predictor, arguments.out / JOURNAL, progress)
    calibrated = calibrate(detector, heard, target, tries_postprocessing=arguments.choose_postprocessing)
    write_calibrated(calibrated, arguments.out, detector.names)
    _say(calibrated, heard, arguments.out)
    if is_bundle(Path(arguments.model)):
        set_calibration(open_bundle(Path(arguments.model)), calibrated.calibration)
        print(f"The bundle {arguments.model} has the calibration now: predict and submit use it.")
    return 1 if heard.unreadable else 0


def _rows(arguments: argparse.Namespace, species: tuple[str, ...]) -> "LabelledRows":
    from birdclef_core.data.dataset import load_dataset
    from birdclef_core.data.soundscapes import find_soundscapes
    from birdclef_core.ensemble.calibration.labelled import recording_rows, soundscape_rows
    from birdclef_core.inference.run.labels import read_labels
    from sweeps.deploy.loading import stages_of
    from sweeps.deploy.scored_data import require_unlearnt, without_learnt

    labels, source = arguments.labels, arguments.on
    if source is None:
        source = "recordings" if labels.is_dir() and find_soundscapes(labels) is None else "soundscapes"
    if source == "soundscapes":
        soundscapes = read_labels(labels, arguments.soundscapes)
        for finding in soundscapes.findings:
            print(finding.describe(), file=sys.stderr)
        kept = without_learnt(*stages_of(arguments.model, arguments.storage), soundscapes)
        if num_learnt := len(soundscapes.files) - len(kept.files):
            print(
                f"{counted(num_learnt, 'labelled soundscape')} left out, as the model learned from {'it' if num_learnt == 1 else 'them'}."
            )
        return soundscape_rows(kept, species)
    if not labels.is_dir():
        raise InputError(f"--on recordings takes a data folder as --labels, but {labels} is none.")
    dataset = load_dataset(labels, fold=arguments.fold)
    if warning := require_unlearnt(*stages_of(arguments.model, arguments.storage), dataset):
        print(f"Warning: {warning}", file=sys.stderr)
    return recording_rows(dataset, species)


def _say(calibrated: "Calibrated", heard: "HeardRows", out: Path) -> None:
    from birdclef_core.ensemble.calibration.page import base_rate_note
    from birdclef_core.inference.run.job import unreadable_lines

    if heard.num_left_out:
        print(f"{counted(heard.num_left_out, 'labelled row')} left out, as no window of audio that can be heard is theirs.")
    choice = calibrated.choice
    if choice:
        what = (
            f"smooth {choice.best.smooth:g}, peak {choice.best.peak:g}"
            if choice.helps
            else "none, as that is no more than its standard error"
        )
        print(f"Post-processing adds {choice.gain:+.4f} +- {choice.error:.4f} to macro AUROC {choice.without:.4f}: {what}.")
    how = "cross-fitted" if calibrated.is_cross_fitted else "APPARENT, too good: all labels are of one file"
    for name, title in (("nll", "NLL"), ("brier", "Brier"), ("ece", "ECE"), ("macro_f1", "macro F1")):
        before, after = getattr(calibrated.before, name), getattr(calibrated.after, name)
        print(f"{title:9}{before:.4f} before, {after:.4f} after ({how})")
    thresholds = calibrated.thresholds
    print(
        f"Thresholds for {calibrated.target}: {int(thresholds.is_own_C.sum())} species have their own; the other "
        f"{int((~thresholds.is_own_C).sum())}, with too few positives, share {thresholds.threshold:.4g}."
    )
    if note := base_rate_note(calibrated.calibration):
        print(f"Warning: {note}", file=sys.stderr)
    if heard.unreadable:
        print(f"{counted(len(heard.unreadable), 'file')} could not be read:", file=sys.stderr)
        print("\n".join(unreadable_lines(heard.unreadable)), file=sys.stderr)
    print(f"Results: {out}")
