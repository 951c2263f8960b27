"""`birdclef export`: makes a bundle of a trained stage or an ensemble."""

import argparse
import sys
from pathlib import Path
from typing import Any

from sweeps.options import DEFAULT_STORAGE
from sweeps.wording import REFERENCE, bytes_text, counted


def add_export_command(commands: Any) -> None:
    """Add the command to the sub-parsers of `birdclef`."""
    parser: argparse.ArgumentParser = commands.add_parser("export", help="make a bundle that predicts without the store")
    parser.description = (
        "Writes everything that a detector is made of into one folder, which can be copied to another machine. birdclef predict, calibrate "
        "and submit take it as --model."
    )
    parser.add_argument("reference", metavar="REF", help=f"{REFERENCE}; or the path of an ensemble.json")
    parser.add_argument(
        "--to", required=True, type=Path, metavar="DIR", help="folder of the bundle: one that is empty or not there"
    )
    parser.add_argument(
        "--format",
        default="torch",
        metavar="NAME",
        help="what runs the networks: torch, openvino (fastest on a CPU) or onnx (default torch)",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        metavar="NAME",
        help="what they compute in: float32, bfloat16 or int8; the last two with openvino only (default float32)",
    )
    parser.add_argument(
        "--with-frontend",
        action="store_true",
        help="put the spectrogram into each network, so that other programs can give it sound; openvino and onnx in float32 only, and slower",
    )
    parser.add_argument(
        "--procedure",
        metavar="NAME",
        help="how windows are cut and scored: default, or 2023 for that of the 2023 solution (default: that of the ensemble, else default)",
    )
    parser.add_argument(
        "--data",
        metavar="DIR|URI",
        help="data folder or packed set on whose sound the bundle is compared with the networks (default: the one that trained the first stage)",
    )
    parser.add_argument(
        "--force", action="store_true", help="write it even if its scores differ by too much, or there is no sound to compare on"
    )
    parser.add_argument("--names", type=Path, metavar="FILE", help="names of the species: an eBird or BirdCLEF taxonomy (CSV)")
    parser.add_argument(
        "--storage",
        metavar="DIR|URI",
        help=f"the sweeps' --storage (default: the one that the ensemble names, else {DEFAULT_STORAGE})",
    )
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from sweeps.deploy.export import export

    bundle = export(
        arguments.reference,
        arguments.to,
        format=arguments.format,
        precision=arguments.precision,
        with_frontend=arguments.with_frontend,
        storage=arguments.storage,
        procedure=arguments.procedure,
        names=arguments.names,
        data=arguments.data,
        force=arguments.force,
    )
    record = bundle.record
    size = sum((bundle.folder / name).stat().st_size for name in record.files)
    print(f"Model {record.model_id[:16]}: {counted(len(record.members), 'network')}, {len(record.species)} species.")
    for member, weight in zip(record.members, record.weights, strict=True):
        print(
            f"  {member.recipe}, {member.stage} {member.stage_id[:8]}: weight {weight:.3f}, "
            + (
                f"{member.network_ms:.0f} ms"
                if member.takes_sound
                else f"{member.network_ms:.0f} + {member.spectrogram_ms:.0f} ms"
            )
            + " of CPU a window"
        )
    parity = bundle.parity()
    if parity.largest_probability_difference is not None:
        cmap = "no cmAP" if parity.cmap is None else f"cmAP {parity.cmap:.4f} ({parity.cmap_difference:+.4f})"
        print(f"Compared on {parity.source}: largest difference of a score {parity.largest_probability_difference:.2g}, {cmap}")
    for rule in parity.broken_rules:
        print(f"Written by force: {rule}", file=sys.stderr)
    print(f"Bundle: {bundle.folder} ({bytes_text(size)}, {record.format}, {record.precision})")
    return 0
