"""Reuses stages of an older code version after proof: `birdclef store adopt --from OLD_CODE`.

One stage of each kind is trained again by the current code. If its weights come out the same to the bit, a certificate is kept, and
the older version's stages of that kind are published a second time, under the ids that the current code gives them.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from birdclef_core.code_version import code_version
from birdclef_core.errors import BirdclefError, InputError, StoreError
from birdclef_core.stages.environment import environment
from birdclef_core.store.adoption import Adoption, adopt_stages
from birdclef_core.store.certificates import Certificate, StageKind, read_certificates, write_certificate
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import IMPORTED
from sweeps.checkpoints.references import store_of
from sweeps.checkpoints.replay import PreparedReplay, Replay, Say, prepare_replay
from sweeps.execution.recordings import RecordingFinder
from sweeps.wording import format_duration

READING_THREADS = 16
GPU_NOTE = "On a GPU even the same code may not give the same bits twice, so this does not show that the code differs."


@dataclass(frozen=True, kw_only=True)
class KindToAdopt:
    """The older version's stages of one kind, and what shows that the current code trains the same."""

    kind: StageKind
    records: tuple[StageRecord, ...]
    certificate: Certificate | None = None
    """The proof, if there is one already."""
    replay: PreparedReplay | None = None
    """The stage to train again, if there is none."""
    problem: str = ""
    """Why none of the stages can be trained again."""


@dataclass(frozen=True, kw_only=True)
class AdoptionPlan:
    """What reusing the stages of an older code version takes."""

    store: StageStore
    old_code: str
    new_code: str
    kinds: tuple[KindToAdopt, ...]
    """Those that take the shortest to prove first."""


def plan_adoption(storage: Storage, code: str, finder: RecordingFinder, pretrained: str | None, say: Say) -> AdoptionPlan:
    """Find the stages of a code version, given by its first digits, and what proves each of their kinds. Trains nothing.

    `pretrained` is as in `--pretrained`; None: as the sweeps had it. `say` is called with a line on each certificate that is damaged.
    Raises InputError when none of the store's code versions begins so, or several do; it names them.
    """
    store, new_code = store_of(storage), code_version()
    codes = {stage_id: item.code for stage_id, item in store.summaries().items()}
    old_code = _older_version(code, Counter(codes.values()))
    with ThreadPoolExecutor(READING_THREADS) as pool:
        found = pool.map(store.record, [stage_id for stage_id, known in codes.items() if known == old_code])
    by_kind: defaultdict[StageKind, list[StageRecord]] = defaultdict(list)
    for record in (record for record in found if record is not None):
        try:
            by_kind[StageKind.of(record.identity)].append(record)
        except StoreError as error:
            say(f"Stage {record.stage_id[:16]} is left out. {error}")
    certificates = read_certificates(store.storage, say)
    kinds = []
    for kind, records in by_kind.items():
        proof = next((item for item in certificates if item.proves(old_code, new_code, kind)), None)
        prepared, problem = (None, "") if proof else _cheapest_replay(store, records, finder, pretrained)
        kinds.append(KindToAdopt(kind=kind, records=tuple(records), certificate=proof, replay=prepared, problem=problem))
    kinds.sort(key=lambda item: item.replay.entry.record.cost_s if item.replay else 0.0)
    return AdoptionPlan(store=store, old_code=old_code, new_code=new_code, kinds=tuple(kinds))


def _older_version(code: str, counts: Mapping[str, int]) -> str:
    """The one code version that begins with `code`."""
    current = code_version()
    older = {known: number for known, number in counts.items() if known not in (current, IMPORTED)}
    found = [known for known in older if code and known.startswith(code)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{known} ({number} stages)" for known, number in sorted(older.items(), key=lambda item: -item[1]))
    raise InputError(
        f"--from must be the beginning of one older code version, but {len(found)} begin with {code!r}. Older versions that the store "
        f"has stages of: {listed or 'none'}. The current version is {current}."
    )


def _cheapest_replay(
    store: StageStore, records: Sequence[StageRecord], finder: RecordingFinder, pretrained: str | None
) -> tuple[PreparedReplay | None, str]:
    """The cheapest stage that can be trained again, from a device like this machine's if there is one; or why none can."""
    here = environment(_device())
    missing: set[tuple[str, str]] = set()
    problems = []
    for record in sorted(records, key=lambda item: (_is_elsewhere(item.environment, here), item.cost_s)):
        needs = record.identity["data"], record.stage_id if record.parent_id else record.identity["parent"]
        if needs in missing:
            continue
        try:
            return prepare_replay(store, record.stage_id, finder, pretrained), ""
        except InputError as error:  # recordings or first weights, which the next stage lacks too
            missing.add(needs)
            problems.append(str(error))
        except StoreError as error:
            problems.append(str(error))
    return None, problems[0]


def _is_elsewhere(recorded: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Whether a stage was trained on another device than this machine's or with another version of torch."""
    return any(recorded.get(name) != here[name] for name in ("device", "torch"))


def plan_lines(plan: AdoptionPlan) -> list[str]:
    """Return what to print of a plan."""
    lines = [f"Stages of code {plan.old_code} in the store; this code is {plan.new_code}."]
    for item in plan.kinds:
        if item.certificate is not None:
            proof = f"proven before on stage {item.certificate.stage_id[:16]}, certificate {item.certificate.hash[:16]} verified"
        elif item.replay is not None:
            record = item.replay.entry.record
            proof = f"to be proven by training {record.stage} {record.stage_id[:16]} again, which took {format_duration(record.cost_s)}"
        else:
            proof = f"cannot be proven: {item.problem}"
        lines.append(f"  {item.kind}: {_amount(item.records)}; {proof}")
    return lines


def prove(plan: AdoptionPlan, say: Say) -> dict[StageKind, Certificate]:
    """Train a stage of each kind again that is not proven yet, and return the certificates by kind.

    `say` is called with each line of progress and each verdict. Each certificate is kept at once. On this machine's GPU if it has one.
    """
    proofs: dict[StageKind, Certificate] = {}
    for item in plan.kinds:
        certificate = item.certificate or _prove_kind(plan, item, say)
        if certificate is not None:
            proofs[item.kind] = certificate
    return proofs


def _prove_kind(plan: AdoptionPlan, item: KindToAdopt, say: Say) -> Certificate | None:
    not_reused = f"{_amount(item.records)} not reused"
    if item.replay is None:
        say(f"{item.kind}: NOT PROVEN, {not_reused}. {item.problem}")
        return None
    record = item.replay.entry.record
    try:
        result = item.replay.run(say)
    except BirdclefError as error:
        say(f"{item.kind}: NOT PROVEN, {not_reused}. Stage {record.stage_id[:16]} could not be trained again: {error}")
        return None
    certificate = _certificate(plan, item.kind, record, result)
    if not result.same_weights:
        say(f"{item.kind}: NOT THE SAME, {not_reused}. {_difference(record, result)}")
        return None
    write_certificate(plan.store.storage, certificate)
    say(f"{item.kind}: the same to the bit; certificate {certificate.hash[:16]}")
    return certificate


def _certificate(plan: AdoptionPlan, kind: StageKind, record: StageRecord, result: Replay) -> Certificate:
    return Certificate(
        old_code=plan.old_code,
        new_code=plan.new_code,
        kind=kind,
        stage_id=record.stage_id,
        recorded_sha256=result.recorded_sha256,
        replayed_sha256=result.replayed_sha256,
        environment=dict(result.environment),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _difference(record: StageRecord, result: Replay) -> str:
    """One line on weights that came out otherwise, with all that may be the reason beside the code."""
    parts = [
        f"The weights of {record.stage} {record.stage_id[:16]} have the sha256 {result.recorded_sha256[:16]} and came out with "
        f"{result.replayed_sha256[:16]}."
    ]
    if changed := [change for change in result.changed if not change.startswith("code ")]:
        parts.append(f"Not only the code may be the reason: {', '.join(changed)}.")
    if _device().type == "cuda":
        parts.append(GPU_NOTE)
    return " ".join(parts)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def publish(plan: AdoptionPlan, proofs: Mapping[StageKind, Certificate]) -> Adoption:
    """Publish the stages of a plan that are proven under the ids that the current code gives them."""
    records = [record for item in plan.kinds for record in item.records]
    return adopt_stages(plan.store, records, proofs, plan.new_code)


def adoption_lines(adoption: Adoption) -> list[str]:
    """Return what to print of stages that were published."""
    spent_s = sum(record.cost_s for record in adoption.adopted)
    files = f"; the files of {adoption.copied} were copied" if adoption.copied else ", as hard links that take no space"
    lines = [
        f"Reused: {_amount(adoption.adopted)}{files if adoption.adopted else ''}: {spent_s / 3600:.2f} hours of training saved."
    ]
    if adoption.already_there:
        lines.append(f"Reused before: {adoption.already_there} stages.")
    return lines + [f"Not reused: {number} stages {reason}." for reason, number in adoption.left_out.items()]


def _amount(records: Sequence[StageRecord]) -> str:
    """`3 stages (1:02:03 of device time)`"""
    stages = "1 stage" if len(records) == 1 else f"{len(records)} stages"
    return f"{stages} ({format_duration(sum(record.cost_s for record in records))} of device time)"
