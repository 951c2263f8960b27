"""A sweep's real driver on a real Ray cluster, but for the training of a stage, which is made up (`made_up_stage.py`).

python tests/helpers/crash_driver.py ADDRESS LOG STORAGE MLFLOW (--start DATA SEARCH | --resume)

The sweep is called s. MLFLOW is the folder of a local tracking server, or the URL of a running one. A storage that is away is waited for
for six seconds.
"""

import sys
from pathlib import Path

from made_up_stage import ExecutionLog, MadeUpStage
from rich.console import Console

from sweeps.execution.actor import TrialActor, WorkerContext
from sweeps.options import SweepOptions
from sweeps.run import runner
from sweeps.run.driver import tuning

LOG = Path(sys.argv[2])


class MadeUpActor(TrialActor):
    """Of this script, so that Ray sends it to the workers."""

    def setup(self, config: dict, context: WorkerContext) -> None:
        import sweeps.execution.trial

        sweeps.execution.trial.train_stage = MadeUpStage(ExecutionLog(LOG), epoch_s=0.1)
        super().setup(config, context)


def main() -> None:
    tuning.TrialActor = MadeUpActor
    address, _, storage, mlflow, what, *more = sys.argv[1:]
    console = Console(force_terminal=False, width=160)
    if what == "--resume":
        runner.resume_sweep("s", storage, {}, console)
        return
    data, search = more
    options = SweepOptions(
        search=search,
        data=data,
        budget="full",
        samples=10,
        name="s",
        address=address,
        pretrained="off",
        storage=storage,
        tracking_uri=mlflow if "://" in mlflow else str(Path(mlflow).resolve()),
        storage_outage_minutes=0.1,
        cache_dir="cache",
        max_concurrent=2,
        cpus_per_trial=1,
        gpus_per_trial=0,
    )
    runner.start_sweep(options, console)


if __name__ == "__main__":
    main()
