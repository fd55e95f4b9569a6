"""Erlang's formulas against scipy's, printed tables and closed forms."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from barograph.scaling.queues import ErlangC, erlang_b, erlang_c, mean_wait

GOLDEN = json.loads((Path(__file__).parent / "queues.json").read_text())


@pytest.mark.parametrize(("servers", "offered", "blocked", "waiting"), GOLDEN["erlang"])
def test_erlangs_formulas_are_scipys(servers, offered, blocked, waiting):
    # scipy's logarithms of 5,000! lose some digits themselves.
    assert erlang_b(servers, offered) == pytest.approx(blocked, rel=1e-10)
    assert erlang_c(servers, offered) == pytest.approx(waiting, rel=1e-9)


@pytest.mark.parametrize(("servers", "offered", "seconds", "beyond"), GOLDEN["responses"])
def test_responses_are_the_integral_over_the_wait(servers, offered, seconds, beyond):
    line = ErlangC(servers, offered, 1.0)
    assert line.responses_beyond(seconds) == pytest.approx(beyond, rel=1e-9)
    assert line.response_quantile(1 - beyond) == pytest.approx(seconds, rel=1e-9)


@pytest.mark.parametrize(("servers", "blocked", "offered"), GOLDEN["printed"])
def test_blocking_is_as_tables_print_it(servers, blocked, offered):
    near = [offered * (1 - 5e-4), offered * (1 + 5e-4)]
    assert erlang_b(servers, near[0]) < blocked < erlang_b(servers, near[1])


def test_one_server_is_the_closed_form():
    line = ErlangC(1, 0.8, 1.0)
    assert line.wait_probability == pytest.approx(0.8, rel=1e-15)
    assert line.mean_wait == pytest.approx(0.8 / 0.2, rel=1e-14)
    assert line.response_quantile(0.99) == pytest.approx(math.log(100) / 0.2, rel=1e-11)
    assert line.wait_quantile(0.5) == pytest.approx(math.log(0.8 / 0.5) / 0.2, rel=1e-14)
    assert line.wait_quantile(0.1) == 0.0


def test_two_servers_are_the_closed_form():
    for utilisation in np.linspace(0.01, 0.999, 40):
        assert erlang_c(2, 2 * utilisation) == pytest.approx(2 * utilisation**2 / (1 + utilisation), rel=1e-12)


def test_poisson_arrivals_at_one_server_wait_as_pollaczek_and_khinchine_say():
    for utilisation, scv in [(0.5, 0.0), (0.9, 0.3), (0.7, 9.0)]:
        assert mean_wait(1, utilisation, 1.0, 1.0, scv) == pytest.approx(utilisation / (1 - utilisation) * (1 + scv) / 2, rel=1e-14)


def test_a_million_servers_neither_overflow_nor_vanish():
    # Near full load B is about 1 / sqrt(pi c / 2) (Jagerman 1974).
    assert erlang_b(1_000_000, 1e6) == pytest.approx(math.sqrt(2 / (math.pi * 1e6)), rel=2e-3)
    assert erlang_c(1_000_000, 10.0) == 0.0
