"""Checkpoints as external models of an MLflow server, one for each stage. The weights stay in the stage store."""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus

from sweeps.tracking import mlflow_views as views


class Checkpoints:
    """Finds and creates the models of checkpoints. `memory` holds their ids as `model/<stage_id>`; see `MlflowSink`."""

    def __init__(self, client: MlflowClient, memory: dict[str, str]) -> None:
        self._client, self._memory = client, memory
        self._absent: set[str] = set()
        """Ids of the stages of which the server was seen to have no model."""
        self._experiments: list[str] = []
        """Ids of the experiments of all searches."""

    def look_again(self) -> None:
        """Forget what the server did not have: other sweeps may have made it."""
        self._absent, self._experiments = set(), []

    def find(self, stage_id: str) -> str | None:
        """Return the id of a checkpoint's model, which is in the experiment of the search that came first; None if there is none."""
        key = f"model/{stage_id}"
        if key not in self._memory and stage_id not in self._absent:
            found = self._client.search_logged_models(
                self.experiments(), filter_string=views.equals("tags.`birdclef.stage_id`", stage_id), max_results=1
            )
            if found:
                self._memory[key] = found[0].model_id
            else:
                self._absent.add(stage_id)
        return self._memory.get(key)

    def experiments(self) -> list[str]:
        """Return the ids of the experiments of all searches."""
        if not self._experiments:
            found = self._client.search_experiments(filter_string=f"name LIKE '{views.EXPERIMENT_PREFIX}%'")
            self._experiments = [experiment.experiment_id for experiment in found]
        return self._experiments

    def create(
        self,
        stage_id: str,
        stage: str,
        checkpoint_uri: str,
        *,
        experiment_id: str,
        sweep: str,
        source_run: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> str:
        """Create an external model and return its id, as mlflow.create_external_model does but without its global state.

        `source_run` and `params`: the run of the execution that made the checkpoint, and its parameters.
        """
        model = self._client.create_logged_model(
            experiment_id,
            name=f"{stage}-{stage_id[:8]}",
            source_run_id=source_run,
            tags={
                "birdclef.stage_id": stage_id,
                "birdclef.checkpoint_uri": checkpoint_uri,
                "birdclef.sweep": sweep,
                "mlflow.model.isExternal": "true",
                "mlflow.note.content": f"Weights: `{checkpoint_uri}`\n\nstage_id: `{stage_id}`",
            },
            params=dict(params or {}),
            model_type="checkpoint",
        )
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self._memory[f"model/{stage_id}"] = model.model_id
        return model.model_id
