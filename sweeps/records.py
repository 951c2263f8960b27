"""What a sweep remembers: its own description and one small file a trial, so that any driver can take it up again."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from birdclef_core.errors import InputError
from birdclef_core.storage import Storage

Status = Literal["waiting", "running", "finished", "pruned", "failed", "interrupted"]
SWEEP_FILE = "sweep.json"


@dataclass(kw_only=True)
class TrialRecord:
    """One trial: what was asked for and what became of it."""

    trial: str
    recipe: str
    params: dict[str, Any]
    stage_ids: list[str]
    status: Status = "waiting"
    """`waiting`: for a slot, or for a prefix that another trial is training."""
    stage: str = ""
    epoch: int = 0
    epochs_done: int = 0
    """Of all stages together, reused ones included."""
    epochs_trained: int = 0
    """Without those of reused stages."""
    stage_scores: dict[str, float] = field(default_factory=dict)
    """Score at the end of each stage, in the stage's own label space."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The latest; of a finished trial those of its last stage."""
    score: float | None = None
    """The objective: `val/cmap_pad5` of the last stage of a finished trial."""
    cost_s: float = 0.0
    """Device seconds spent by this trial."""
    saved_s: float = 0.0
    """Device seconds that reused stages would have cost."""
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.status in ("finished", "pruned", "failed")


@dataclass(frozen=True)
class SweepRecords:
    """The files of one sweep: `sweep.json` and `trials/<trial>.json`. Only the driver writes them."""

    storage: Storage

    def exists(self) -> bool:
        return self.storage.exists(SWEEP_FILE)

    def save_sweep(self, description: dict[str, Any]) -> None:
        self.storage.write_text(SWEEP_FILE, json.dumps(description, indent=1))

    def load_sweep(self) -> dict[str, Any]:
        """Raises InputError when there is no such sweep, naming those beside it."""
        text = self.storage.read_text(SWEEP_FILE)
        if text is None:
            parent, _, name = self.storage.root.rpartition("/")
            beside = Storage(self.storage.filesystem, parent)
            known = [other for other in beside.names() if beside.exists(f"{other}/{SWEEP_FILE}")]
            raise InputError(f"There is no sweep {name!r} in {parent}; those that exist: {', '.join(known) or 'none'}.")
        return json.loads(text)

    def save_trial(self, record: TrialRecord) -> None:
        self.storage.write_text(f"trials/{record.trial}.json", json.dumps(asdict(record), indent=1))

    def load_trials(self) -> list[TrialRecord]:
        """Every trial in the order of their names."""
        trials = self.storage.at("trials")
        names = [name for name in trials.names() if name.endswith(".json")]
        with ThreadPoolExecutor(16) as pool:
            texts = list(pool.map(trials.read_text, names))
        return [TrialRecord(**json.loads(text)) for text in texts if text]
