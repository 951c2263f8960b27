"""Where a sweep's things are: its records and stages in the storage, and its folder on the driver's machine."""

from dataclasses import dataclass, replace
from pathlib import Path

from birdclef_core.store.patience import Patience
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.options import DEFAULT_STORAGE
from sweeps.report.results import RESULT_FOLDER
from sweeps.schedule.records import SweepRecords


@dataclass(frozen=True, kw_only=True)
class SweepPlace:
    """The places of one sweep."""

    name: str
    """The sweep's name."""
    address: str
    """The storage as the user gave it."""
    storage: Storage
    records: SweepRecords
    store: StageStore
    local_dir: Path
    """The sweep's folder on the driver's machine. With a local storage, its records are there too."""

    @classmethod
    def of(cls, name: str, address: str, patience: Patience) -> "SweepPlace":
        """Return the places of a sweep in the storage at `address`, which is written to with `patience`."""
        storage = replace(Storage.parse(address), patience=patience)
        return cls(
            name=name,
            address=address,
            storage=storage,
            records=SweepRecords(storage.at(name)),
            store=StageStore(storage.at("store")),
            local_dir=Path(storage.path(name)) if storage.is_local else Path(DEFAULT_STORAGE).resolve() / name,
        )

    @property
    def result(self) -> Path:
        """The folder of the result on the driver's machine."""
        return self.local_dir / RESULT_FOLDER

    def keep_result(self) -> None:
        """Keep the result's files with the records: the driver's machine may be gone a minute later."""
        if not self.storage.is_local:
            self.records.storage.keep_folder(self.result, RESULT_FOLDER)
