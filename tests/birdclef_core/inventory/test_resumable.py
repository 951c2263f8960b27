from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from birdclef_core.inventory.resumable import look_at_files

FILES = pd.DataFrame({"path": ["a", "b"], "size_bytes": [1, 2], "mtime_ns": [10, 20], "deep": [False, False]})


def look(store: Path | None, errors: dict[str, str] | None = None) -> tuple[dict[str, Any], list[str]]:
    """What was seen, and the files that were looked at."""
    looked = []

    def see(path: str, _: bool) -> dict[str, Any]:
        looked.append(path)
        return {"length": len(looked), "error": (errors or {}).get(path, "")}

    table, count = look_at_files(FILES, see, sees=["error", "length"], store=store, threads=1)
    assert count == len(looked) and list(table) == ["path", "error", "length"] and list(table["path"]) == ["a", "b"]
    return table.set_index("path")["length"].to_dict(), looked


def test_what_was_seen_is_not_looked_at_again(tmp_path: Path) -> None:
    first, _ = look(tmp_path)
    assert look(tmp_path) == (first, []) and look(None)[1] == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"nothing", "cut", "other"])
@pytest.mark.parametrize("name", ["seen.parquet", "part-1.parquet"])
def test_a_damaged_store_is_looked_at_again(tmp_path: Path, content: bytes | str, name: str) -> None:
    first, _ = look(tmp_path)
    path = tmp_path / "seen.parquet"
    whole = path.read_bytes()
    path.unlink()
    if content == "other":
        pd.DataFrame({"path": ["a"], "size_bytes": ["much"]}).to_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    assert look(tmp_path) == (first, ["a", "b"])
    assert look(tmp_path) == (first, []), "the damaged file was replaced"


def test_what_was_out_of_reach_is_looked_at_again(tmp_path: Path) -> None:
    """A permission or a disk that failed once must not mark a file as unusable for ever."""
    look(tmp_path, {"a": "cannot be read: Permission denied", "b": "cannot be opened as audio"})
    assert look(tmp_path)[1] == ["a"]
    assert look(tmp_path)[1] == []


def test_a_store_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert look(tmp_path / "file" / "store")[1] == ["a", "b"]
    assert len(caplog.records) == 1 and "cannot be kept" in caplog.text
