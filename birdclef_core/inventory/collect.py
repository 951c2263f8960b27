"""Collects recordings of many sources into one manifest: each recording once, with its sources, by reference unless copies are
asked for.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import pandas as pd
from filelock import FileLock

from birdclef_core.data.audio_files import read_header, stat_files
from birdclef_core.data.folder_walk import NOISE_FOLDER, RECORDING_FOLDERS
from birdclef_core.data.kept_split import keep_split
from birdclef_core.data.labels import clean_text, parse_labels, unify_spelling
from birdclef_core.data.manifest import MANIFEST_NAME, write_manifest
from birdclef_core.data.recording_names import unique_ids
from birdclef_core.data.tables import is_there, read_table
from birdclef_core.errors import DataError, InputError
from birdclef_core.identity import file_sha256
from birdclef_core.inventory.collect_report import CollectReport, describe, read_targets, unknown_targets, write_lists
from birdclef_core.inventory.merge import Merged, merge_claims, override_labels
from birdclef_core.inventory.place import carry_soundscapes, choose_soundscapes, place_files
from birdclef_core.inventory.resumable import Progress, look_at_files
from birdclef_core.inventory.sources import Source, named_apart, noise_source, open_source
from birdclef_core.inventory.species_names import find_taxonomies, named_codes, read_taxonomies, renamed_codes
from birdclef_core.output_place import require_folder, writing_to

Mode = Literal["reference", "link", "copy"]

_PROBES = ".probes-2"  # The number is raised when what is probed changes.
_FACTS = ("duration_s", "sample_rate_hz", "channels", "format", "size_bytes", "error")
_NAMES = ("scientific_name", "common_name")


def collect(
    sources: Sequence[Path],
    out: Path,
    *,
    mode: Mode = "reference",
    overrides: Path | None = None,
    noise: Sequence[Path] = (),
    threads: int = 16,
    progress: Progress | None = None,
) -> CollectReport:
    """Write `out`/manifest.parquet, which `load_dataset(out)` reads, and beside it the split (recordings of an earlier one stay in
    their fold), the lists of `write_lists` and the first source's labelled soundscapes.

    `sources` are folders or metadata tables in any of the layouts of `open_source`; `noise` are folders of noise whose names do
    not say so. Recordings are merged by the rules of `merge_claims`: on labels, a table's word counts before that of a folder's name,
    then the source given first. `overrides` is a CSV of recording_id, primary_label (empty: leave it out) and perhaps
    secondary_labels. Species codes are renamed to those of the newest taxonomy file among the sources, where there is one.
    `mode` "link" and "copy" put the audio under `out`; by default paths are absolute and nothing is copied. `progress` gets
    (files done, files in all), first for probing, then for placing. Interrupted, it goes on where it was.
    Raises DataError for a source that holds nothing or cannot be read, InputError for overrides that do not fit and for an `out`
    that cannot be written to.
    """
    started = time.monotonic()
    if mode not in get_args(Mode):
        raise InputError(f"mode must be one of {', '.join(get_args(Mode))}, but got {mode!r}.")
    require_folder(out)
    with writing_to(out), FileLock(out / ".lock"):
        opened = _open(sources, noise)
        wanted = _read_overrides(overrides) if overrides else None
        targets = read_targets(opened)
        with_soundscapes, findings = choose_soundscapes([source.path for source in opened if source.path.is_dir()])
        claims = _claims(opened)
        taxonomy = read_taxonomies(find_taxonomies(_taxonomy_folders(sources, opened)))
        renamed = _new_codes(claims, taxonomy)
        claims = _renamed(claims, renamed)
        facts, num_probed = _probe(claims, opened, out / _PROBES, threads, progress)
        merged = merge_claims(claims.join(facts, on="path").fillna({"content": ""}))
        _require_recordings(merged, opened)
        if overrides and wanted is not None:
            _require_known(overrides, wanted["recording_id"], set(merged.recordings["recording_id"]))
            merged = override_labels(merged, wanted)
        manifest = _manifest(merged, _species_names(claims, taxonomy), opened, facts)
        if mode != "reference":
            manifest = _placed(manifest, out, mode, progress)
        write_manifest(manifest, out / MANIFEST_NAME)
        keep_split(out, manifest[(manifest["kind"] == "recording") & (manifest["error"] == "")])
        write_lists(out, targets, merged, renamed, taxonomy)
        if with_soundscapes:
            carry_soundscapes(with_soundscapes, out, renamed, how="copy" if mode == "copy" else "link")
    unknown = unknown_targets(
        [renamed.get(code, code) for code in targets], set(manifest["primary_label"][manifest["error"] == ""])
    )
    said = [*(item for source in opened for item in source.findings), *findings, *([unknown] if unknown.count else [])]
    elapsed_s = time.monotonic() - started
    return describe(
        out, opened, merged, manifest, renamed, said, num_files=len(facts), num_probed=num_probed, elapsed_s=elapsed_s
    )


def _open(sources: Sequence[Path], noise: Sequence[Path]) -> list[Source]:
    opened = [source for path in sources for source in open_source(Path(path))]
    opened += [noise_source(Path(path)) for path in noise]
    unique = list({(source.path, source.layout): source for source in opened}.values())
    if not any(len(source.claims) for source in unique):
        given = ", ".join(str(source.path) for source in unique) or "nothing"
        raise DataError(f"The sources must hold recordings, but {given} has none. {_seen(unique)}".rstrip())
    return named_apart(unique)


def _seen(opened: Sequence[Source]) -> str:
    """Return what was found in the sources and is not read, as text for an error."""
    return " ".join(finding.describe() for source in opened for finding in source.findings)


def _claims(opened: Sequence[Source]) -> pd.DataFrame:
    """Return all claims, in the order of the sources."""
    tables = [
        source.claims.assign(source=rank, source_name=source.name, only_describes=source.layout == "table")
        for rank, source in enumerate(opened)
    ]
    return pd.concat(tables, ignore_index=True)


def _taxonomy_folders(sources: Sequence[Path], opened: Sequence[Source]) -> list[Path]:
    folders = [Path(path).absolute() for path in sources] + [source.path for source in opened]
    return [path for path in dict.fromkeys(folders) if path.is_dir()]


def _new_codes(claims: pd.DataFrame, taxonomy: pd.DataFrame) -> dict[str, str]:
    """Return codes that get another spelling: the taxonomy's code, or the same letters with accents composed in one way."""
    written = set(claims["primary_label"]) | {code for labels in claims["secondary_labels"] for code in labels}
    return unify_spelling(written) | renamed_codes(named_codes(claims), taxonomy)


def _renamed(claims: pd.DataFrame, new: dict[str, str]) -> pd.DataFrame:
    if not new:
        return claims
    secondary = [tuple(dict.fromkeys(new.get(code, code) for code in labels)) for labels in claims["secondary_labels"]]
    return claims.assign(
        primary_label=claims["primary_label"].replace(new),
        secondary_labels=pd.Series(secondary, index=claims.index, dtype=object),
    )


def _probe(
    claims: pd.DataFrame, opened: Sequence[Source], store: Path, threads: int, progress: Progress | None
) -> tuple[pd.DataFrame, int]:
    """Return, by path, `_FACTS` and content (a hash, or ""), and how many files were looked at now.

    Only files of one size can hold the same, so only those are read to the end.
    """
    noise_paths = [path for source in opened for path in source.noise["path"]]
    paths = list(dict.fromkeys([*claims["path"].dropna(), *noise_paths]))
    if not paths:
        given = ", ".join(str(source.path) for source in opened)
        raise DataError(f"The sources must hold audio, but {given} has none. {_seen(opened)}".rstrip())
    files = stat_files(Path(), paths, threads=threads).assign(path=paths)
    files["deep"] = files["size_bytes"].duplicated(keep=False) & (files["size_bytes"] > 0)
    seen, num_probed = look_at_files(
        files, _look, sees=["content", *_FACTS[:4], "error"], store=store, threads=threads, progress=progress
    )
    seen["size_bytes"] = files["size_bytes"].clip(lower=0).to_numpy()
    return seen.set_index("path"), num_probed


def _look(path: str, deep: bool) -> dict[str, object]:
    header = read_header(Path(path))
    content = ""
    if deep and not header.error:
        try:
            content = file_sha256(Path(path))
        except OSError as error:
            header = replace(header, error=f"cannot be read: {error.strerror}")
    return {**{name: getattr(header, name) for name in _FACTS if name != "size_bytes"}, "content": content}


def _require_known(path: Path, ids: pd.Series, known: set[str]) -> None:
    if unknown := [name for name in ids if name not in known]:
        raise InputError(
            f"{path} must name recordings of the sources, but {', '.join(unknown[:5])} is none ({len(unknown)} in all)."
        )


def _read_overrides(path: Path) -> pd.DataFrame:
    if not is_there(path):
        raise InputError(f"The overrides must be a CSV, but {path} does not exist.")
    table = read_table(path)
    table.require_columns("recording_id", "primary_label")
    raw = table.rows
    ids = raw["recording_id"].map(clean_text)
    if ids.duplicated().any():
        raise InputError(f"{path} must name each recording once, but names {ids[ids.duplicated()].iloc[0]} several times.")
    texts = raw["secondary_labels"] if "secondary_labels" in raw else pd.Series("", index=raw.index)
    try:
        secondary = [parse_labels(text) if text.strip() else None for text in texts]
    except ValueError as error:
        raise InputError(f"secondary_labels of {path} must be lists such as ['amecro', 'gretit1'], but: {error}") from error
    return pd.DataFrame(
        {
            "recording_id": ids,
            "primary_label": raw["primary_label"].map(clean_text),
            "secondary_labels": pd.Series(secondary, index=raw.index, dtype=object),
        }
    )


def _species_names(claims: pd.DataFrame, taxonomy: pd.DataFrame) -> pd.DataFrame:
    """Return, by code, scientific_name and common_name, of the taxonomy first, then as tables say."""
    tables = claims[claims["by_table"]][["primary_label", *_NAMES]].rename(columns={"primary_label": "code"})
    return pd.concat([taxonomy, tables.drop_duplicates()]).drop_duplicates("code").set_index("code")


def _require_recordings(merged: Merged, opened: Sequence[Source]) -> None:
    if not merged.recordings["path"].notna().any():
        raise DataError(
            f"Some recording of {', '.join(str(source.path) for source in opened)} must have both audio and a label, but none has: "
            f"there are {len(merged.unlabelled)} files that no table or folder labels, and "
            f"{merged.num_only_described + len(merged.recordings)} rows without audio. {_seen(opened)}".rstrip()
        )


def _manifest(merged: Merged, names: pd.DataFrame, opened: Sequence[Source], facts: pd.DataFrame) -> pd.DataFrame:
    recordings = merged.recordings.join(names, on="primary_label").assign(kind="recording")
    recordings["error"] = recordings["error"].fillna(recordings["absence"]).fillna("missing")
    recordings[list(_FACTS)] = recordings[list(_FACTS)].fillna({"duration_s": 0.0, "size_bytes": 0})
    noise = pd.concat([source.noise.assign(source_name=source.name) for source in opened], ignore_index=True)
    noise = noise.drop_duplicates("path").join(facts, on="path")
    noise = noise[(noise["content"] == "") | ~noise["content"].duplicated()].reset_index(drop=True)
    noise = noise.assign(kind="noise", recording_id=unique_ids(noise["path"]), sources=[(name,) for name in noise["source_name"]])
    return pd.concat([recordings, noise.drop(columns=["content", "source_name"])], ignore_index=True)


def _placed(manifest: pd.DataFrame, out: Path, mode: Mode, progress: Progress | None) -> pd.DataFrame:
    """Return the manifest with audio that can be opened under `out`, paths relative to it."""
    usable = manifest[manifest["error"] == ""]
    is_noise = usable["kind"] == "noise"
    folder = pd.Series(RECORDING_FOLDERS[0], index=usable.index).mask(is_noise, NOISE_FOLDER)
    inside = usable["primary_label"].mask(is_noise, usable["group"]).fillna("").str.replace(r"/|\\|^\.", "_", regex=True)
    suffix = usable["path"].str.rsplit(".", n=1).str[-1]
    targets = (folder + "/" + inside + "/" + usable["recording_id"] + "." + suffix).str.replace("//", "/")
    if mode != "reference":
        place_files(list(usable["path"]), list(targets), out, how=mode, progress=progress)
    return manifest.assign(path=manifest["path"].where(manifest["error"] != "", targets))
