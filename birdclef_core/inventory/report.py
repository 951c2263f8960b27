"""Describes a data folder with pictures, on one HTML page that needs nothing besides itself."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ, SpectrogramConfig
from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.data.kept_split import VALIDATION_SHARE
from birdclef_core.data.listing import list_folder
from birdclef_core.html import charts
from birdclef_core.html.inventory_page import (
    Column,
    Section,
    codes,
    figure,
    finding_box,
    folded,
    heading,
    page,
    pair,
    paragraph,
    table,
)
from birdclef_core.inventory.example_pictures import (
    choose_examples,
    delta_pictures,
    mel_pictures,
    settings_of,
    wave_picture,
)
from birdclef_core.inventory.species_names import named_codes
from birdclef_core.recipes import RECIPES

_WHAT_IS_SEEN = (
    "The waveform is the air pressure over time, 32,000 numbers a second. The spectrum says how strong each frequency is, over the "
    "whole stretch: a bird's song stands out of the noise as peaks, mostly between 1 and 10 kHz.",
    "A mel spectrogram is what the network looks at: a spectrum for each moment, side by side, with time to the right, frequency "
    "upwards and brightness for strength. Frequencies are gathered in bins that are narrow below 1 kHz and wider above, as hearing "
    "does, and strength is in decibels, cut 80 below the loudest point of the clip.",
    "The recipes differ in window and step. A long window tells close frequencies apart and blurs quick notes; a short one does the "
    "opposite. A longer step makes a smaller picture, which is faster and coarser in time. The same ten seconds look like this:",
)
_RAREST = 25
_PAIRS = 15


def report(
    root: Path,
    out_html: Path,
    *,
    target_species: Path | None = None,
    fold: int = 0,
    num_examples: int = 3,
) -> Path:
    """Writes the page about a BirdCLEF-shaped or collected folder and returns its path.

    The arguments are those of `load_dataset`, so that the split shown is the one that is trained on; audio that cannot be used is
    told of, however much it is. Raises DataError for a folder that has no recordings to describe.
    """
    dataset = load_dataset(
        root,
        target_species=target_species,
        max_bad_share=1.0,
        fold=fold,
    )
    names = named_codes(list_folder(root).recordings)
    out_html.parent.mkdir(parents=True, exist_ok=True)
    out_html.write_text(render(dataset, names, share=VALIDATION_SHARE, num_examples=num_examples), encoding="utf-8")
    return out_html


def render(dataset: Dataset, names: pd.DataFrame, *, share: float, num_examples: int) -> str:
    """The page as text. `names` has code, scientific_name and common_name."""
    recordings = dataset.recordings
    species = species_table(dataset, names)
    sections = [
        _findings(dataset),
        _species(species),
        _times(recordings, species),
        _lengths(recordings),
        _together(recordings),
        _places(recordings),
        _rarest(species),
        _split(recordings, species, share),
        _examples(dataset, dict(zip(species["code"], species["common_name"], strict=True)), num_examples),
    ]
    hours = recordings["duration_s"].sum() / 3600
    targets = len(dataset.target_species)
    tiles = [
        (f"{len(recordings):,}", "recordings"),
        (f"{len(species):,}", "species" if targets == len(species) else f"species, {targets:,} of them targets"),
        (f"{hours:,.1f}", "hours"),
        (f"{recordings.loc[recordings['author'] != '', 'author'].nunique():,}", "authors"),
        (f"{recordings['is_validation'].mean():.0%}", "of the recordings validate"),
        (f"{len(dataset.noise):,}", "noise files"),
    ]
    title = f"The recordings of {dataset.root.resolve().name}"
    return page(title, f"Data fingerprint {dataset.fingerprint[:16]}", tiles, [item for item in sections if item.body])


def species_table(dataset: Dataset, names: pd.DataFrame) -> pd.DataFrame:
    """One row a species, the commonest first: code, common_name, recordings, minutes, authors, train, validation, heard (in the
    background of others)."""
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


def _findings(dataset: Dataset) -> Section:
    items = [finding_box(f"{item.count:,} × not so: {item.rule}", item.meaning, item.examples[:3]) for item in dataset.findings]
    return Section("findings", "What to know first", "".join(items))


def _species(species: pd.DataFrame) -> Section:
    few = len(species) <= charts.FEW_SPECIES
    total = int(species["recordings"].sum())
    half = int((species["recordings"].cumsum() < total / 2).sum()) + 1
    text = (
        f"The commonest species has {species['recordings'].iloc[0]:,} recordings, the rarest {species['recordings'].iloc[-1]:,}; "
        f"half of all recordings are of {half:,} of the {len(species):,} species. Training draws rare species more often."
    )
    caption = "" if few else "Every species is a point of the curves, sorted by each of them; the axes are logarithmic."
    body = paragraph(text) + figure(charts.species_chart(species), caption)
    return Section(
        "species", "Species", body + folded(f"All {len(species):,} species as a table", _species_rows(species, sortable=True))
    )


def _species_rows(species: pd.DataFrame, *, sortable: bool = False) -> str:
    columns = [Column("species", list(species["code"]))]
    if (species["common_name"] != "").any():
        columns.append(Column("name", list(species["common_name"])))
    columns += [
        Column("recordings", list(species["recordings"]), number=True, bar=True),
        Column("minutes", list(species["minutes"]), number=True, bar=True),
        Column("authors", list(species["authors"]), number=True),
        Column("training", list(species["train"]), number=True),
        Column("validation", list(species["validation"]), number=True),
        Column("heard behind others", list(species["heard"]), number=True),
    ]
    return table(columns, sortable=sortable)


def _times(recordings: pd.DataFrame, species: pd.DataFrame) -> Section:
    parts = []
    if "year" in recordings and recordings["year"].notna().any():
        known = float(recordings["year"].notna().mean())
        caption = "" if known > 0.9995 else f"The year of recording is known for {known:.1%} of the recordings."
        parts.append(figure(charts.year_chart(recordings, species), caption))
    else:
        parts.append(paragraph("The metadata do not say when the recordings were made."))
    if "source" in recordings and recordings["source"].nunique() > 1:
        groups = recordings.groupby("source", sort=False)
        columns = [
            Column("collection", list(groups.groups)),
            Column("recordings", list(groups.size()), number=True, bar=True),
            Column("minutes", list(groups["duration_s"].sum() / 60), number=True, bar=True),
            Column("species", list(groups["primary_label"].nunique()), number=True),
        ]
        parts.append("<h3>Collections</h3>" + table(columns))
    return Section("times", "Years", "".join(parts))


def _lengths(recordings: pd.DataFrame) -> Section:
    duration_s = recordings["duration_s"].to_numpy()
    used = np.minimum(duration_s, 60).sum() / max(duration_s.sum(), 1e-9)
    text = (
        f"Half of the recordings last {np.median(duration_s):.1f} s or less. A recording shorter than a clip is repeated to fill it; "
        f"scoring reads the first 60 s of a recording, which is {used:.0%} of all sound here."
    )
    caption = "Dashed: the lengths of the recipes' clips and of what is scored."
    rated = figure(
        charts.rating_chart(recordings["rating"].to_numpy()),
        "The weight of a recording in the loss is its rating over the best rating, at least 0.1. Unrated ones count 3.",
    )
    body = paragraph(text) + figure(charts.duration_chart(duration_s), caption)
    return Section("lengths", "Durations and ratings", body + pair(rated, _length_rows(duration_s)))


def _length_rows(duration_s: NDArray[np.float64]) -> str:
    names = ["under 1 s", "1 to 5 s", "5 to 10 s", "10 to 20 s", "20 to 60 s", "1 to 5 min", "5 min and longer"]
    group = np.digitize(duration_s, [1, 5, 10, 20, 60, 300])
    counts = np.bincount(group, minlength=len(names))
    minutes = np.bincount(group, weights=duration_s / 60, minlength=len(names))
    return table(
        [
            Column("length", names),
            Column("recordings", list(counts), number=True, bar=True),
            Column("minutes", list(minutes), number=True, bar=True),
        ]
    )


def _together(recordings: pd.DataFrame) -> Section:
    names, shared_SS = charts.labels_together(recordings["primary_label"], recordings["secondary_labels"])
    several = float((recordings["secondary_labels"].str.len() > 0).mean())
    if not names:
        return Section("together", "Labels that occur together", paragraph("No recording has secondary labels."))
    rows, columns = np.triu_indices(len(names), 1)
    counts = shared_SS[rows, columns]
    best = [index for index in np.argsort(-counts, kind="stable")[:_PAIRS] if counts[index]]
    pairs = table(
        [
            Column("most often together", [f"{names[rows[index]]} · {names[columns[index]]}" for index in best]),
            Column("recordings", [int(counts[index]) for index in best], number=True, bar=True),
        ]
    )
    text = (
        f"{several:.1%} of the recordings have secondary labels: other species heard in them. They are weaker targets than the "
        "primary one; where two species are nearly always together, a model can take one for the other."
    )
    picture = figure(charts.together_chart(names, shared_SS), "The species that share most recordings with others.")
    return Section("together", "Labels that occur together", paragraph(text) + pair(picture, pairs))


def _places(recordings: pd.DataFrame) -> Section:
    if "latitude" not in recordings or "longitude" not in recordings:
        return Section("places", "Places", paragraph("The metadata do not say where the recordings were made."))
    known = recordings[recordings["latitude"].between(-90, 90) & recordings["longitude"].between(-180, 180)]
    if known.empty:
        return Section("places", "Places", paragraph("The metadata do not say where the recordings were made."))
    caption = (
        f"{len(known) / len(recordings):.1%} of the recordings have coordinates. No coasts are drawn: this page loads no map."
    )
    values = (known[name].to_numpy() for name in ("latitude", "longitude", "is_validation"))
    return Section("places", "Places", figure(charts.map_chart(*values), caption))


def _rarest(species: pd.DataFrame) -> Section:
    if len(species) <= _RAREST:
        return Section("rarest", "Rarest species", "")
    text = "What a model will know least of. Few recordings of few authors are the same few birds: more authors help most."
    return Section("rarest", "Rarest species", paragraph(text) + _species_rows(species.iloc[::-1].head(_RAREST)))


def _split(recordings: pd.DataFrame, species: pd.DataFrame, share: float) -> Section:
    sides = [recordings[~recordings["is_validation"]], recordings[recordings["is_validation"]]]
    columns = [
        Column("side", ["training", "validation"]),
        Column("recordings", [len(side) for side in sides], number=True),
        Column("minutes", [side["duration_s"].sum() / 60 for side in sides], number=True),
        Column("species", [side["primary_label"].nunique() for side in sides], number=True),
        Column("authors", [side.loc[side["author"] != "", "author"].nunique() for side in sides], number=True),
    ]
    text = (
        "An author's recordings are on one side only: the same bird, place and microphone on both would make scores look better "
        f"than they are. So the share of a species differs from the {share:.0%} asked for where few authors recorded it."
    )
    body = paragraph(text) + table(columns) + figure(charts.split_chart(species, share))
    unscored = species["code"][species["validation"] == 0]
    if len(unscored):
        what = f"{len(unscored):,} species are trained and not scored: all recordings of one author, or too few"
        body += folded(what, codes(sorted(unscored)))
    return Section("split", "Training and validation", body)


def _examples(dataset: Dataset, common_names: Mapping[str, str], count: int) -> Section:
    examples = choose_examples(dataset.root, dataset.recordings, count)
    if not examples:
        return Section("examples", "What a model sees", paragraph("No recording could be decoded, so none is shown."))
    configs: dict[str, SpectrogramConfig] = {name: recipe().model.spectrogram for name, recipe in RECIPES.items()}
    settings = settings_of(configs)
    parts = [paragraph(text) for text in _WHAT_IS_SEEN]
    for example in examples:
        shown_s = len(example.wave_T) / SAMPLE_RATE_HZ
        name = common_names.get(example.species) or example.species
        parts.append(heading(name, f"{example.recording_id}, {shown_s:.1f} s from {example.start_s:.1f} s"))
        parts += [figure(wave_picture(example)), figure(mel_pictures(example, settings))]
    with_deltas = next(item for item in settings if item.config.deltas)
    caption = (
        f"The three channels of {with_deltas.recipes[0]}: red where the level rises towards higher frequencies, blue where it falls. "
        f"{_and(name for name, config in configs.items() if not config.deltas)} see the mel spectrogram alone; the others have deltas."
    )
    parts += [heading("Deltas", ""), figure(delta_pictures(examples[0], with_deltas), caption), _scaling(configs)]
    return Section("examples", "What a model sees", "".join(parts))


def _scaling(configs: dict[str, SpectrogramConfig]) -> str:
    unit = _and(name for name, config in configs.items() if config.db_scale == "unit")
    other = _and(name for name, config in configs.items() if config.db_scale == "over_255")
    return paragraph(
        f"Decibels become numbers near 1 in two ways: (dB + 80) / 80 in {unit}, dB / 255 in {other}. A network adapts to either, but "
        "its weights belong to the one that it was trained with."
    )


def _and(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
