"""mlflow/ has no Python and a compose file whose settings are all in .env.example."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "mlflow"
COMPOSE = (FOLDER / "compose.yaml").read_text()
SETTINGS = dict(re.findall(r"^(\w+)=(.*)$", (FOLDER / ".env.example").read_text(), re.MULTILINE))


def test_no_python_hides_the_library() -> None:
    assert not list(FOLDER.rglob("*.py"))


def test_every_setting_is_used_and_every_use_is_a_setting() -> None:
    used = set(re.findall(r"\$\{(\w+):\?", COMPOSE))
    assert used == set(SETTINGS)
    assert len(re.findall(r"\$\{", COMPOSE)) == len(re.findall(r"\$\{\w+:\?set it in \.env\}", COMPOSE))


def test_secrets_have_no_default() -> None:
    secret = {name for name in SETTINGS if name.endswith(("PASSWORD", "SECRET_KEY"))}
    assert len(secret) == 4
    assert all(SETTINGS[name] == "" for name in secret)
    assert all(value for name, value in SETTINGS.items() if name not in secret)


def test_the_server_is_one_that_the_clients_may_use() -> None:
    dependencies = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    (mlflow,) = (Requirement(item) for item in dependencies if item.startswith("mlflow"))
    assert mlflow.specifier.contains(SETTINGS["MLFLOW_VERSION"])


def test_only_the_server_is_reached_from_outside_and_asks_for_a_password() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["mlflow"]
    assert "--app-name=basic-auth" in services["mlflow"]["command"]
    assert services["mlflow"]["environment"]["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert all("healthcheck" in service for service in services.values())
    assert set(services["mlflow"]["depends_on"]) == set(services) - {"mlflow"}


def test_no_password_is_on_a_command_line_or_in_a_file_of_settings() -> None:
    content = yaml.safe_load(COMPOSE)
    shown = str([service.get("command") for service in content["services"].values()]) + str(content["configs"])
    assert "postgresql+psycopg2://mlflow@postgres" in shown
    assert not re.search(r"PASSWORD|SECRET", shown)


def test_allowed_hosts_and_origins_name_the_same_places() -> None:
    hosts = SETTINGS["MLFLOW_ALLOWED_HOSTS"].split(",")
    origins = SETTINGS["MLFLOW_ALLOWED_ORIGINS"].split(",")
    assert origins == [f"http://{host}" for host in hosts]
    assert SETTINGS["MLFLOW_LISTEN"] in hosts
