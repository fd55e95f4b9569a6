"""Rolling back in a real model registry of MLflow, with a SQLite backend."""

from datetime import UTC, datetime, timedelta

import mlflow
import numpy as np
import polars as pl
import pytest
from barograph.rollout import MlflowAlias, Rollout
from mlflow import MlflowClient

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path):
    uri = f"sqlite:///{tmp_path}/registry.db"
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("fraud")
    for version in ("1", "2", "3"):
        client.create_model_version("fraud", source=f"file:{tmp_path}/{version}")
    client.set_registered_model_alias("fraud", "live", "2")
    return client


def worse():
    rng = np.random.default_rng(0)
    rollout = Rollout("1", "2", guards=["error_rate"])
    for version, rate in (("1", 0.01), ("2", 0.08)):
        rollout.observe_frame(pl.DataFrame({"failed": rng.random(3000) < rate}), version=version, failed="failed")
    return rollout.decide(NOW)


def points_at(client):
    return str(client.get_model_version_by_alias("fraud", "live").version)


def test_a_failing_version_goes_back_once_it_is_no_dry_run(registry, tmp_path):
    decision = worse()
    assert decision.decision == "roll back"
    audit = tmp_path / "audit.jsonl"
    dry = MlflowAlias("fraud", "live", expected=2, to=1, client=registry, audit=audit).act(decision, NOW)
    assert not dry.done
    assert points_at(registry) == "2"
    outcome = MlflowAlias("fraud", "live", expected=2, to=1, dry_run=False, audit=audit).act(decision, NOW)
    assert outcome.done, outcome
    assert points_at(registry) == "1"
    assert len(audit.read_text().splitlines()) == 2


def test_whoever_was_faster_is_not_overruled(registry):
    registry.set_registered_model_alias("fraud", "live", "3")
    outcome = MlflowAlias("fraud", "live", expected=2, to=1, client=registry, dry_run=False).act(worse(), NOW)
    assert not outcome.done
    assert "points at version 3 by now" in outcome.reason
    assert points_at(registry) == "3"


def test_a_registry_that_refuses_is_an_outcome(registry):
    outcome = MlflowAlias("fraud", "live", expected=2, to=9, client=registry, dry_run=False).act(worse(), NOW)
    assert "failed" in outcome.reason
    assert points_at(registry) == "2"


def test_an_alias_cools_down_whichever_versions_it_is_moved_between(registry, tmp_path):
    guards = {"client": registry, "dry_run": False, "audit": tmp_path / "audit.jsonl", "cooldown": "1h", "most": 2, "period": "1d"}
    assert MlflowAlias("fraud", "live", expected=2, to=1, **guards).act(worse(), NOW).done
    # The next release fails at once: an alias that flaps is somebody's to look at.
    registry.set_registered_model_alias("fraud", "live", "3")
    again = MlflowAlias("fraud", "live", expected=3, to=1, **guards)
    assert (
        again.act(worse()._replace(time=NOW + timedelta(minutes=5)), NOW + timedelta(minutes=5)).reason == "the last time was too short ago"
    )
    assert points_at(registry) == "3"
    assert again.act(worse()._replace(time=NOW + timedelta(hours=2)), NOW + timedelta(hours=2)).done
    registry.set_registered_model_alias("fraud", "live", "2")
    third = MlflowAlias("fraud", "live", expected=2, to=1, **guards)
    assert "2 times" in third.act(worse()._replace(time=NOW + timedelta(hours=4)), NOW + timedelta(hours=4)).reason
    assert points_at(registry) == "2"
