import os
from pathlib import Path
from typing import Any

import pytest

from birdclef_core.errors import DataError
from birdclef_core.inventory.sources import Source, named_apart, noise_source, open_source


def claimed(source: Source) -> dict[str, str]:
    """File name -> label, or the name in the table where there is no audio."""
    named = source.claims["path"].where(source.claims["path"].notna(), source.claims["filename"])
    return dict(zip(named.str.rsplit("/", n=1).str[-1], source.claims["primary_label"], strict=True))


def test_2021(collections: Any) -> None:
    collections.audio("d/train_short_audio/aldfly/XC1.ogg", "d/train_short_audio/amecro/XC2.ogg", "d/train_soundscapes/7.ogg")
    collections.table(
        "d/train_metadata.csv",
        [
            {"primary_label": "aldfly", "secondary_labels": "['amecro']", "filename": "XC1.ogg", "date": "2019-05-12"},
            {"primary_label": "amecro", "secondary_labels": "[]", "filename": "XC2.ogg", "date": ""},
        ],
    )
    collections.table("d/train_soundscape_labels.csv", [{"row_id": "7_5", "birds": "nocall"}])
    (source,) = open_source(collections.parent / "d")
    assert source.layout == "birdclef" and source.name == "d"
    assert claimed(source) == {"XC1.ogg": "aldfly", "XC2.ogg": "amecro"}
    assert source.claims["secondary_labels"][0] == ("amecro",)
    assert source.claims["year"][0] == 2019 and source.claims["year"].isna()[1]
    assert Path(source.claims["path"][0]).is_absolute() and source.claims["by_table"].all()


def test_2023_with_audio_that_the_table_does_not_name_and_a_row_without_audio(collections: Any) -> None:
    root = collections.year_2023("d", {"a": [1, 2]})
    collections.audio("d/train_audio/a/extra.ogg")
    (root / "train_audio/a/XC2.ogg").unlink()
    (source,) = open_source(root)
    assert claimed(source) == {"XC1.ogg": "a", "XC2.ogg": "a", "extra.ogg": ""}
    assert list(source.claims["path"].isna()) == [False, True, False]


@pytest.mark.parametrize("letter", ["A", "A-M"])
def test_extended_xeno_canto_writes_names_for_codes(collections: Any, letter: str) -> None:
    """The table of 2020 labels in words and has the codes beside them."""
    collections.audio(f"d/{letter}/aldfly/XC1.mp3", f"d/{letter}/amecro/XC2.mp3")
    common = {"background": "", "recordist": "ann", "sci_name": "", "species": "", "date": "2013-05-25"}
    fly = {"ebird_code": "aldfly", "primary_label": "Empidonax alnorum_Alder Flycatcher", "filename": "XC1.mp3"}
    crow = {"ebird_code": "amecro", "primary_label": "Corvus brachyrhynchos_American Crow", "filename": "XC2.mp3"}
    collections.table(
        "d/train_extended.csv",
        [
            {**common, **fly, "secondary_labels": f"['{crow['primary_label']}', 'amecro', 'Some other_Bird']"},
            {**common, **crow, "secondary_labels": "[]"},
        ],
    )
    (source,) = open_source(collections.parent / "d")
    assert source.layout == "xeno_canto" and claimed(source) == {"XC1.mp3": "aldfly", "XC2.mp3": "amecro"}
    assert source.claims["secondary_labels"][0] == ("amecro", "Some other_Bird")
    assert source.claims["author"][0] == "ann"


def test_extended_xeno_canto_without_its_table(collections: Any) -> None:
    collections.audio("d/A/aldfly/XC1.mp3", "d/B/brncre/XC2.mp3")
    (source,) = open_source(collections.parent / "d")
    assert source.layout == "xeno_canto" and claimed(source) == {"XC1.mp3": "aldfly", "XC2.mp3": "brncre"}
    assert not source.claims["by_table"].any()


def test_plain_folders_with_noise_and_soundscapes_beside_them(collections: Any) -> None:
    collections.audio("d/amecro/1.wav", "d/Parus major/deep/2.wav", "d/loose.wav", "d/test_soundscapes/s.wav")
    collections.audio("d/background_noise/rain.wav", "d/background_noise/birdclef2021_nocall/n.wav")
    (source,) = open_source(collections.parent / "d")
    assert source.layout == "folders"
    assert claimed(source) == {"1.wav": "amecro", "2.wav": "Parus major", "loose.wav": ""}
    assert {Path(row["path"]).name: row["group"] for _, row in source.noise.iterrows()} == {"rain.wav": "", "n.wav": "nocall"}


def test_the_complete_metadata_alone_and_beside_flat_audio(collections: Any) -> None:
    rows = [
        {
            "id": 7,
            "primary_label_2023": "amecro",
            "secondary_labels_2023": "[]",
            "rec": "ann",
            "q": "A",
            "gen": "Corvus",
            "sp": "b",
        }
    ]
    table = collections.table("alone/train.csv", rows)
    for path in (table, table.parent):
        (source,) = open_source(path)
        assert source.layout == "table" and source.claims["path"].isna().all()
        assert source.claims["rating"][0] == 5 and source.claims["scientific_name"][0] == "Corvus b"
    collections.table("flat/train.csv", rows)
    collections.audio("flat/train_audios/XC7.ogg", "flat/train_audios/XC8.ogg")
    (source,) = open_source(collections.parent / "flat")
    assert source.layout == "birdclef" and claimed(source) == {"XC7.ogg": "amecro", "XC8.ogg": ""}


def test_a_table_beside_folders_of_species(collections: Any) -> None:
    collections.audio("d/amecro/1.wav", "d/amecro/2.wav")
    collections.table("d/mine.csv", [{"primary_label": "amecro", "filename": "amecro/1.wav"}])
    (source,) = open_source(collections.parent / "d")
    assert source.layout == "folders" and claimed(source) == {"1.wav": "amecro", "2.wav": ""}


def test_a_download_of_xeno_canto_with_its_own_table(collections: Any) -> None:
    """Its columns have no codes; authors, places and background species must not be lost for it."""
    collections.audio("d/Great Tit/XC9 - Great Tit - Parus major.wav", "d/Blackbird/XC10 - Blackbird - Turdus merula.wav")
    rows = [
        {"id": 9, "gen": "Parus", "sp": "major", "en": "Great Tit", "rec": "ann", "q": "A", "also": "['Turdus merula']"},
        {"id": 10, "gen": "Turdus", "sp": "merula", "en": "Blackbird", "rec": "bob", "q": "no score", "also": "['']"},
    ]
    collections.table("d/metadata.csv", rows)
    (source,) = open_source(collections.parent / "d")
    assert source.findings == () and list(source.claims["author"]) == ["ann", "bob"]
    assert list(source.claims["primary_label"]) == ["Parus major", "Turdus merula"]
    assert source.claims["path"].notna().all() and source.claims["secondary_labels"][0] == ("Turdus merula",)


def test_a_species_that_is_there_in_a_format_that_is_not_read(collections: Any) -> None:
    collections.audio("d/a/1.wav", "d/b/2.wav", "d/c/3.wav")
    for name in ("b/2", "c/3"):
        path = collections.parent / f"d/{name}.wav"
        path.rename(path.with_suffix(".m4a")).write_bytes(b"\0\0\0\x18ftypM4A ")
    (source,) = open_source(collections.parent / "d")
    (finding,) = source.findings
    assert claimed(source) == {"1.wav": "a"} and (finding.kind, finding.count, finding.level) == ("unread_format", 2, "loses")
    assert "Nothing is left of 2 species: b, c." in finding.meaning


def test_folders_that_systems_and_editors_make_are_no_species(collections: Any) -> None:
    collections.audio("d/a/1.wav", "d/.ipynb_checkpoints/1-checkpoint.wav", "d/__MACOSX/a/1.wav")
    (source,) = open_source(collections.parent / "d")
    assert claimed(source) == {"1.wav": "a"} and source.findings == ()


def test_a_link_back_is_no_source_of_its_own(collections: Any) -> None:
    collections.year_2023("all/birds", {"a": [1]})
    (collections.parent / "all/loop").symlink_to(collections.parent / "all")
    assert [source.name for source in open_source(collections.parent / "all")] == ["birds"]


def test_a_link_back_within_a_source_is_worth_a_note(collections: Any) -> None:
    root = collections.year_2023("d", {"a": [1]})
    (root / "train_audio/a/loop").symlink_to(root)
    (source,) = open_source(root)
    assert len(source.claims) == 1
    assert [(finding.kind, finding.level) for finding in source.findings] == [("link_loop", "note")]


def test_rows_whose_audio_is_in_a_format_that_is_not_read(collections: Any) -> None:
    root = collections.year_2023("d", {"a": [1, 2]})
    (root / "train_audio/a/XC2.ogg").rename(root / "train_audio/a/XC2.wma").write_bytes(b"\x30\x26\xb2\x75")
    (source,) = open_source(root)
    assert list(source.claims["absence"].fillna("")) == ["", "there only as train_audio/a/XC2.wma, a format that is not read"]


def test_a_folder_of_sources(collections: Any) -> None:
    collections.year_2023("all/birdclef-2023", {"a": [1]})
    collections.audio("all/plain/b/2.wav", "all/freefield1010/n.wav", "all/unlabeled_soundscapes/s.wav")
    found = {source.name: source for source in open_source(collections.parent / "all")}
    assert {name: source.layout for name, source in found.items()} == {
        "birdclef-2023": "birdclef",
        "plain": "folders",
        "freefield1010": "noise",
    }
    assert list(found["freefield1010"].noise["group"]) == ["field"]


def test_noise_groups(collections: Any) -> None:
    collections.audio("wind/a.wav", "wind/b/c.wav", "background_noise/d.wav", "background_noise/rainforest/e.wav")
    groups = {Path(path).name: group for path, group in noise_source(collections.parent / "wind").noise.to_numpy()}
    assert groups == {"a.wav": "wind", "c.wav": "b"}
    groups = {Path(path).name: group for path, group in noise_source(collections.parent / "background_noise").noise.to_numpy()}
    assert groups == {"d.wav": "", "e.wav": "ambient"}


def test_names_of_sources_are_told_apart(collections: Any) -> None:
    collections.audio("x/data/a/1.wav", "y/data/a/2.wav")
    sources = [source for folder in ("x/data", "y/data") for source in open_source(collections.parent / folder)]
    assert [source.name for source in named_apart(sources)] == ["data", "y/data"]
    assert [source.name for source in named_apart([sources[0]] * 3)] == ["data", "x/data", "x/data-2"]


def test_what_is_no_source_is_said(collections: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="must hold recordings"):
        open_source(tmp_path / "empty")
    with pytest.raises(DataError, match="must have the columns primary_label"):
        open_source(collections.table("other.csv", [{"x": 1}]))
    os.mkfifo(tmp_path / "pipe")
    for open_it in (open_source, noise_source):
        with pytest.raises(DataError, match=r"[Mm]ust be a f|Noise must be"):
            open_it(tmp_path / "pipe")
    with pytest.raises(DataError, match="must be UTF-8"):
        open_source(Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9")))
    (tmp_path / "quiet_noise").mkdir()
    with pytest.raises(DataError, match="no audio in it"):
        noise_source(tmp_path / "quiet_noise")
