"""`barograph ingest`: messages of a broker, posted to sidecars, each counted once.

A consumer takes messages, writes down at the broker which of them it is about to send, posts them to a sidecar and acknowledges them to
the broker once the sidecar has. Whatever dies in between, the messages come again in the same bodies under the same numbers, and the
sidecar counts a number once.

`messages.py` cuts messages into bodies, `delivery.py` posts them, `pump.py` keeps both going, and each broker has a file of its own.
"""

from __future__ import annotations

import argparse

__all__ = ["BROKERS", "run"]

BROKERS = ("kafka", "redis", "nats", "rabbitmq")


def run(options: argparse.Namespace) -> int:
    """Runs until it is told to end; the exit code."""
    from barograph.ingest.pump import pump
    from barograph.ingest.settings import Settings

    settings = Settings.of(options)
    return pump(settings.broker(), settings)
