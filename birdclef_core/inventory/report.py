"""Describes a data folder with pictures, on one HTML page that needs nothing besides itself."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ, SpectrogramConfig
from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.data.listing import list_folder
from birdclef_core.data.recording_folds import how_grouped, is_validation
from birdclef_core.data.splits import NUM_FOLDS
from birdclef_core.findings import inflect
from birdclef_core.html import page
from birdclef_core.html.charts import FEW_ROWS
from birdclef_core.html.table import Column, Table
from birdclef_core.inventory import report_charts as charts
from birdclef_core.inventory.example_pictures import (
    choose_examples,
    delta_pictures,
    mel_pictures,
    settings_of,
    wave_picture,
)
from birdclef_core.inventory.labels_together import SharedRecordings
from birdclef_core.inventory.last_check import LastCheck, read_last_check
from birdclef_core.inventory.sound_formats import sound_formats
from birdclef_core.inventory.species_names import named_codes
from birdclef_core.recipes import RECIPES

Values = dict[str, object]
"""What a section of the template `data_report.html.j2` shows."""

_SCORED_S = 60.0
_RAREST = 25
_PAIRS = 15
_MAX_TOGETHER = 18
_EXAMPLES_OF_A_FINDING = 3
_LENGTHS_S = (1, 5, 10, 20, 60, 300)
_LENGTH_NAMES = ("under 1 s", "1 to 5 s", "5 to 10 s", "10 to 20 s", "20 to 60 s", "1 to 5 min", "5 min and longer")


def report(
    root: Path,
    out_html: Path,
    *,
    target_species: Path | None = None,
    fold: int = 0,
    num_examples: int = 3,
) -> Path:
    """Write the page about a BirdCLEF-shaped or collected folder and return its path.

    The arguments are those of `load_dataset`, so the split that is shown is the one that is trained on. However much of the audio
    cannot be used, the page is written and names it. Raises DataError for a folder that has no recordings to describe.
    """
    dataset = load_dataset(root, target_species=target_species, max_bad_share=1.0, fold=fold)
    listing = list_folder(root)
    text = render(
        dataset,
        named_codes(listing.recordings),
        sound_formats(root, dataset.recordings["path"], listing.recordings),
        read_last_check(root),
        fold=fold,
        num_examples=num_examples,
    )
    out_html.parent.mkdir(parents=True, exist_ok=True)
    out_html.write_text(text, encoding="utf-8")
    return out_html


def render(
    dataset: Dataset,
    names: pd.DataFrame,
    formats: pd.DataFrame,
    last_check: LastCheck | None,
    *,
    fold: int,
    num_examples: int,
) -> str:
    """Return the page.

    `names` has code, scientific_name and common_name; `formats` is the table of `sound_formats`; `fold` is the one
    that validates.
    """
    recordings = dataset.recordings
    species = species_table(dataset, names)
    num_targets = len(dataset.target_species)
    common_names = dict(zip(species["code"], species["common_name"], strict=True))
    return page.render(
        "data_report",
        name=dataset.root.resolve().name,
        fingerprint=dataset.fingerprint[:16],
        tiles=[
            (f"{len(recordings):,}", "recordings"),
            (f"{len(species):,}", "species" if num_targets == len(species) else f"species, {num_targets:,} of them targets"),
            (f"{recordings['duration_s'].sum() / 3600:,.1f}", "hours"),
            (f"{recordings.loc[recordings['author'] != '', 'author'].nunique():,}", "authors"),
            (page.percent(recordings["is_validation"].mean()), "of the recordings are for validation"),
            (f"{len(dataset.noise):,}", "noise files"),
        ],
        findings=[(item, item.examples[:_EXAMPLES_OF_A_FINDING]) for item in dataset.findings],
        check=_last_check(last_check, dataset),
        species=_species(species),
        years=_years(recordings, species),
        lengths=_lengths(recordings),
        formats=_formats(recordings, formats),
        soundscapes=_soundscapes(dataset, common_names),
        together=_together(recordings),
        places=_places(recordings),
        rarest=_species_rows("the rarest species", species.iloc[::-1].head(_RAREST)) if len(species) > _RAREST else None,
        split=_split(recordings, species, fold),
        examples=_examples(dataset, common_names, num_examples),
    )


def species_table(dataset: Dataset, names: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each species, the commonest first.

    Columns: code, common_name, recordings, minutes, authors, train, validation, and heard (recordings of other species in whose
    background it is named).
    """
    recordings = dataset.recordings[dataset.recordings["primary_label"].isin(dataset.all_species.index)]
    groups = recordings.groupby("primary_label")
    named = recordings[recordings["author"] != ""]
    result = pd.DataFrame(
        {
            "recordings": groups.size(),
            "minutes": groups["duration_s"].sum() / 60,
            "validation": groups["is_validation"].sum(),
        }
    )
    result["authors"] = named.groupby("primary_label")["author"].nunique().reindex(result.index, fill_value=0)
    result["train"] = result["recordings"] - result["validation"]
    result["heard"] = dataset.recordings["secondary_labels"].explode().value_counts().reindex(result.index, fill_value=0)
    common = names[names["common_name"] != ""].drop_duplicates("code").set_index("code")["common_name"]
    result["common_name"] = [common.get(code, "") for code in result.index]
    ranked = result.sort_values(["recordings", "minutes"], ascending=False, kind="stable")
    return ranked.rename_axis("code").reset_index()


def _species(species: pd.DataFrame) -> Values:
    total = int(species["recordings"].sum())
    is_few = len(species) <= FEW_ROWS
    return {
        "number": len(species),
        "most": int(species["recordings"].iloc[0]),
        "fewest": int(species["recordings"].iloc[-1]),
        "half": int((species["recordings"].cumsum() < total / 2).sum()) + 1,
        "bars": charts.species_bars(species) if is_few else None,
        "curves": ()
        if is_few
        else [charts.rank_curve(species[name].to_numpy(float), name) for name in ("recordings", "minutes")],
        "table": _species_rows("all species", species, is_sortable=True),
    }


def _species_rows(label: str, species: pd.DataFrame, *, is_sortable: bool = False) -> Table:
    has_names = (species["common_name"] != "").any()
    columns = [
        Column("species", list(species["code"])),
        *([Column("name", list(species["common_name"]))] if has_names else []),
        Column("recordings", list(species["recordings"]), is_number=True, has_bars=True),
        Column("minutes", list(species["minutes"]), is_number=True, has_bars=True),
        Column("authors", list(species["authors"]), is_number=True),
        Column("training", list(species["train"]), is_number=True),
        Column("validation", list(species["validation"]), is_number=True),
        Column("heard behind others", list(species["heard"]), is_number=True),
    ]
    return Table(label, columns, is_sortable)


def _years(recordings: pd.DataFrame, species: pd.DataFrame) -> Values:
    has_years = "year" in recordings and recordings["year"].notna().any()
    has_sources = "source" in recordings and recordings["source"].nunique() > 1
    return {
        "chart": charts.year_chart(recordings, species) if has_years else None,
        "known": float(recordings["year"].notna().mean()) if has_years else 0.0,
        "collections": _collections(recordings) if has_sources else None,
    }


def _collections(recordings: pd.DataFrame) -> Table:
    groups = recordings.groupby("source", sort=False)
    columns = [
        Column("collection", list(groups.groups)),
        Column("recordings", list(groups.size()), is_number=True, has_bars=True),
        Column("minutes", list(groups["duration_s"].sum() / 60), is_number=True, has_bars=True),
        Column("species", list(groups["primary_label"].nunique()), is_number=True),
    ]
    return Table("collections", columns)


def _lengths(recordings: pd.DataFrame) -> Values:
    duration_s = recordings["duration_s"].to_numpy()
    return {
        "median_s": float(np.median(duration_s)),
        "scored": float(np.minimum(duration_s, _SCORED_S).sum() / max(duration_s.sum(), 1e-9)),
        "chart": charts.duration_chart(duration_s),
        "ratings": charts.rating_chart(recordings["rating"].dropna().to_numpy()),
        "num_unrated": int(recordings["rating"].isna().sum()),
        "table": _length_rows(duration_s),
    }


def _length_rows(duration_s: NDArray[np.float64]) -> Table:
    group = np.digitize(duration_s, _LENGTHS_S)
    counts = np.bincount(group, minlength=len(_LENGTH_NAMES))
    minutes = np.bincount(group, weights=duration_s / 60, minlength=len(_LENGTH_NAMES))
    columns = [
        Column("length", _LENGTH_NAMES),
        Column("recordings", list(counts), is_number=True, has_bars=True),
        Column("minutes", list(minutes), is_number=True, has_bars=True),
    ]
    return Table("recordings by length", columns)


def _last_check(record: LastCheck | None, dataset: Dataset) -> Values | None:
    """Return what the last check found besides what loading says itself."""
    if record is None:
        return None
    said = {(item.kind, item.count) for item in dataset.findings}
    others = [item for item in record.findings if (item.kind, item.count) not in said]
    return {
        "date": datetime.fromtimestamp(record.changed_at, UTC).date().isoformat(),
        "num_files": record.num_files,
        "refusal": record.refusal,
        "findings": [(item, item.examples[:_EXAMPLES_OF_A_FINDING]) for item in others],
    }


def _formats(recordings: pd.DataFrame, formats: pd.DataFrame) -> Values:
    minutes = recordings["duration_s"].to_numpy() / 60
    channels = formats["channels"].map({1: "mono", 2: "stereo"}).fillna(formats["channels"].astype(str) + " channels")
    kinds = {"sample rate": formats["sample_rate_hz"].map("{:,} Hz".format), "channels": channels, "format": formats["format"]}
    slow = formats["sample_rate_hz"] < SAMPLE_RATE_HZ
    return {
        "tables": [_counted(name, values.to_numpy(), minutes) for name, values in kinds.items()],
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "num_slow": int(slow.sum()),
        "lowest_hz": int(formats["sample_rate_hz"].min()),
    }


def _counted(name: str, values_R: NDArray, minutes_R: NDArray[np.float64]) -> Table:
    """Return how many recordings have each value, the commonest value first."""
    groups = pd.DataFrame({name: values_R, "minutes": minutes_R}).groupby(name)["minutes"].agg(["size", "sum"])
    groups = groups.sort_values("size", ascending=False, kind="stable")
    columns = [
        Column(name, list(groups.index)),
        Column("recordings", list(groups["size"]), is_number=True, has_bars=True),
        Column("minutes", list(groups["sum"]), is_number=True),
    ]
    return Table(f"recordings by {name}", columns)


def _soundscapes(dataset: Dataset, common_names: Mapping[str, str]) -> Values | None:
    soundscapes = dataset.soundscapes
    if soundscapes is None:
        return None
    windows = soundscapes.windows["labels"].explode().dropna().value_counts()
    learnt = dataset.recordings["primary_label"].value_counts().reindex(windows.index, fill_value=0)
    columns = [
        Column("species", list(windows.index)),
        Column("name", [common_names.get(code, "") for code in windows.index]),
        Column("labelled windows", list(windows), is_number=True, has_bars=True),
        Column("recordings to learn from", list(learnt), is_number=True),
    ]
    return {
        "windows": f"{len(soundscapes.windows):,} {inflect('[window|windows]', len(soundscapes.windows))}",
        "files": f"{len(soundscapes.files):,} {inflect('[soundscape|soundscapes]', len(soundscapes.files))}",
        "minutes": float(soundscapes.files["duration_s"].sum() / 60),
        "num_empty": int((soundscapes.windows["labels"].str.len() == 0).sum()),
        "num_species": len(windows),
        "num_targets": sum(code in dataset.target_species.index for code in windows.index),
        "num_unlearnt": int((learnt == 0).sum()),
        "table": Table("species in soundscapes", columns, is_sortable=True),
    }


def _together(recordings: pd.DataFrame) -> Values | None:
    shared = SharedRecordings.of(recordings["primary_label"], recordings["secondary_labels"])
    best = shared.best_pairs(_PAIRS)
    if not best:
        return None
    names, shared_SS = shared.sharing_most(_MAX_TOGETHER)
    pairs = [
        Column("most often together", [f"{one} · {other}" for one, other, _ in best]),
        Column("recordings", [count for *_, count in best], is_number=True, has_bars=True),
    ]
    return {
        "several": float((recordings["secondary_labels"].str.len() > 0).mean()),
        "chart": charts.together_chart(names, shared_SS),
        "pairs": Table("pairs of species", pairs),
    }


def _places(recordings: pd.DataFrame) -> Values | None:
    if "latitude" not in recordings or "longitude" not in recordings:
        return None
    known = recordings[recordings["latitude"].between(-90, 90) & recordings["longitude"].between(-180, 180)]
    if known.empty:
        return None
    latitude, longitude, is_validation = (known[name].to_numpy() for name in ("latitude", "longitude", "is_validation"))
    return {
        "known": len(known) / len(recordings),
        "chart": charts.map_chart(latitude, longitude, is_validation),
        "is_wide": charts.is_wide_map(latitude, longitude),
    }


def _split(recordings: pd.DataFrame, species: pd.DataFrame, fold: int) -> Values:
    sides = [recordings[~recordings["is_validation"]], recordings[recordings["is_validation"]]]
    columns = [
        Column("side", ["training", "validation"]),
        Column("recordings", [len(side) for side in sides], is_number=True),
        Column("minutes", [side["duration_s"].sum() / 60 for side in sides], is_number=True),
        Column("species", [side["primary_label"].nunique() for side in sides], is_number=True),
        Column("authors", [side.loc[side["author"] != "", "author"].nunique() for side in sides], is_number=True),
    ]
    share = 1 / NUM_FOLDS
    scored = set(recordings["primary_label"][~recordings["always_trains"]])
    unscored = set(species["code"][species["validation"] == 0])
    return {
        "share": share,
        "how_grouped": how_grouped(recordings),
        "fold": fold,
        "table": Table("training and validation", columns),
        "folds": _folds(recordings),
        "charts": [charts.sides_chart(species, share), charts.shares_chart(species, share)],
        "unscored": sorted(unscored & scored),
        "unscorable": sorted(unscored - scored),
        "num_always": int(recordings["always_trains"].sum()),
    }


def _folds(recordings: pd.DataFrame) -> Table:
    """Return what each fold has: recordings that validate in it, their species and groups."""
    parts = [recordings[is_validation(recordings, fold)] for fold in range(NUM_FOLDS)]
    columns = [
        Column("fold", list(range(NUM_FOLDS))),
        Column("validation recordings", [len(part) for part in parts], is_number=True, has_bars=True),
        Column("species", [part["primary_label"].nunique() for part in parts], is_number=True),
        Column("authors or other groups", [part["group"].nunique() for part in parts], is_number=True),
    ]
    return Table("the folds", columns)


def _examples(dataset: Dataset, common_names: Mapping[str, str], count: int) -> Values | None:
    examples = choose_examples(dataset.root, dataset.recordings, count)
    if not examples:
        return None
    configs: dict[str, SpectrogramConfig] = {name: recipe().model.spectrogram for name, recipe in RECIPES.items()}
    settings = settings_of(configs)
    with_deltas = next(item for item in settings if item.config.deltas)
    return {
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "recordings": [
            {
                "name": common_names.get(example.species) or example.species,
                "recording_id": example.recording_id,
                "start_s": example.start_s,
                "shown_s": example.end_s - example.start_s,
                "wave": wave_picture(example),
                "mels": mel_pictures(example, settings),
            }
            for example in examples
        ],
        "deltas": delta_pictures(examples[0], with_deltas),
        "deltas_of": with_deltas.recipes[0],
        "without_deltas": _and(name for name, config in configs.items() if not config.deltas),
        "unit": _and(name for name, config in configs.items() if config.db_scale == "unit"),
        "over_255": _and(name for name, config in configs.items() if config.db_scale == "over_255"),
    }


def _and(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
