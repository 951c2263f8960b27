"""Where a sweep's things are: its records and stages in the storage, and its folder on the driver's machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from birdclef_core.errors import InputError
from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.patience import Patience
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.execution.nodes.check import RUN_MARK
from sweeps.options import DEFAULT_STORAGE
from sweeps.report.page.writing import REPORT
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

    def make(self, run: str) -> None:
        """Make the local folder, and mark the sweep's place with this run of its driver, `run`.

        Raises InputError where nothing can be written: no such bucket, no access, no room.
        """
        try:
            self.local_dir.mkdir(parents=True, exist_ok=True)
            self.records.storage.write_text(RUN_MARK, run)
        except OSError as error:
            raise InputError(f"The storage {self.address} must be writable, but is not: {error}") from None

    @contextmanager
    def lease(self, run: str) -> Iterator[None]:
        """Keep other drivers of this sweep out: two would overwrite each other's records. Raises InputError when there is one."""
        leases = Leases(self.records.storage)
        with leases.hold("driver", Holder(sweep=run, run=run, trial="driver")) as lease:
            if lease is None:
                raise InputError(
                    f"A sweep must have one driver, but another process runs {self.name!r}. Stop it first; "
                    f"if it was killed on another machine, wait {leases.duration_s:.0f} s."
                )
            yield

    @property
    def result(self) -> Path:
        """The folder of the result on the driver's machine."""
        return self.local_dir / RESULT_FOLDER

    @property
    def report(self) -> str:
        """Where the sweep's page is kept: a path, or a URI."""
        return self.records.storage.path(f"{RESULT_FOLDER}/{REPORT}")

    def keep_result(self) -> None:
        """Keep the result's files with the records: the driver's machine may be gone a minute later."""
        if not self.storage.is_local:
            self.records.storage.keep_folder(self.result, RESULT_FOLDER)
