"""Nobody else reaches a local Ray: where it listens, which token it asks for, and who may read the token of a cluster."""

import os

import ray._private.ray_constants as ray_constants
from ray.tune.execution.class_cache import _ActorClassCache

from sweeps.execution.private_ray import close_token_file, keep_keys_off_runtime_environments, private_ray


def test_a_local_ray_asks_for_a_token_of_its_own(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with private_ray() as arguments:
        assert "RAY_AUTH_MODE" not in os.environ and len(os.environ["RAY_AUTH_TOKEN"]) == 64
        assert arguments == {"_node_ip_address": "127.0.0.1"} and not ray_constants.ENABLE_RAY_CLUSTER
    assert os.environ["RAY_AUTH_MODE"] == "disabled" and "RAY_AUTH_TOKEN" not in os.environ
    assert ray_constants.ENABLE_RAY_CLUSTER


def test_tune_sends_no_keys_to_workers(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    keep_keys_off_runtime_environments()

    class Worker:
        pass

    sent = _ActorClassCache().get(Worker)._default_options["runtime_env"]["env_vars"]
    assert "PL_DISABLE_FORK" in sent and "AWS_SECRET_ACCESS_KEY" not in sent


def test_a_clusters_token_is_closed_to_others_and_that_is_said_once(tmp_path, monkeypatch):
    token = tmp_path / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert close_token_file() == ""
    token.write_text("secret")
    token.chmod(0o644)
    said = close_token_file()
    assert str(token) in said and "secret" not in said
    assert token.stat().st_mode & 0o777 == 0o600
    assert close_token_file() == ""
