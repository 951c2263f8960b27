"""`birdclef data ...`: what is printed, what is written, and exit codes that a script can use."""

import json

import pytest

from sweeps.cli.birdclef import birdclef


def test_collect_then_check_then_report(tone_data, tmp_path, capsys):
    root, out = tone_data.dataset.root, tmp_path / "collected"
    assert birdclef(["data", "collect", str(root), "--out", str(out)]) == 0
    assert "18 recordings" in capsys.readouterr().out
    assert (out / "manifest.parquet").is_file()

    assert birdclef(["data", "check", str(out)]) in (0, 1)
    assert "Written" in capsys.readouterr().out
    assert json.loads((out / "check.json").read_text())

    assert birdclef(["data", "report", str(out), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "low" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_a_damaged_file_is_named_and_the_exit_code_says_that_data_are_lost(tone_data, tmp_path, capsys):
    out = tmp_path / "copied"
    birdclef(["data", "collect", str(tone_data.dataset.root), "--out", str(out), "--mode", "copy"])
    broken = sorted(out.rglob("*.wav"))[0]
    broken.write_bytes(broken.read_bytes()[:3000])
    assert birdclef(["data", "check", str(out)]) == 1
    assert "loses" in capsys.readouterr().out
    assert broken.stem in (out / "check.csv").read_text()


def test_a_file_in_place_of_a_folder_for_results_exits_2(tone_data, tmp_path, capsys):
    (tmp_path / "file").touch()
    root = str(tone_data.dataset.root)
    for command in (["collect", root], ["check", root], ["demo"]):
        assert birdclef(["data", *command, "--out", str(tmp_path / "file")]) == 2
    assert birdclef(["data", "report", root, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("Error: ") == 4


@pytest.mark.parametrize("command", ["check", "report"])
def test_a_folder_that_is_not_there_exits_2(tmp_path, command, capsys):
    assert birdclef(["data", command, str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr()
    assert "nowhere" in said.out + said.err


def test_pack_says_what_is_packed_and_how_it_is_used(tone_data, tmp_path, capsys):
    root, place = str(tone_data.dataset.root), str(tmp_path / "a set")
    assert birdclef(["data", "pack", root, place]) == 0
    said = capsys.readouterr().out
    assert "18 recordings" in said and f"Data fingerprint {tone_data.dataset.fingerprint[:16]}" in said
    assert f"--data '{place}'" in said
    assert birdclef(["data", "pack", root, place]) == 0
    assert "of which 0 were written now" in capsys.readouterr().out
    for wrong in (
        [root, root],
        [str(tmp_path / "nowhere"), str(tmp_path / "new")],
        [root, "ftp://x/y"],
        [root, "s3://a:b@bucket/x"],
    ):
        assert birdclef(["data", "pack", *wrong]) == 2
        assert "Error: " in capsys.readouterr().err
