"""Queues from other hands: `python make_queues.py` writes queues.json beside it.

Erlang's B and C from scipy's Poisson and regularised gamma functions, in closed forms that are not the recursion; responses of M/M/c by
scipy's numerical integration over the wait; published blocking tables as they are printed. Needs scipy.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import integrate, special, stats


def erlang(servers, offered):
    """B by logarithms of Poisson probabilities, C by B."""
    blocked = float(np.exp(stats.poisson.logpmf(servers, offered) - np.log(special.pdtr(servers, offered))))
    return blocked, blocked / (1 - offered / servers * (1 - blocked))


def responses_beyond(servers, offered, seconds):
    """P(wait + service > seconds) with mean service 1: the wait's density integrated, no closed form of the sum."""
    _, waiting = erlang(servers, offered)
    left = servers - offered
    later, _ = integrate.quad(lambda w: left * np.exp(-left * w) * np.exp(-(seconds - w)), 0, seconds, epsabs=0, epsrel=1e-12)
    return (1 - waiting) * np.exp(-seconds) + waiting * (later + np.exp(-left * seconds))


ERLANG = [(1, 0.5), (1, 0.99), (2, 1.0), (5, 4.0), (10, 5.0), (10, 9.9), (64, 32.0), (64, 60.8), (100, 95.0), (1000, 950.0), (5000, 4900.0)]
RESPONSES = [(1, 0.5, 2.0), (2, 1.0, 2.0), (3, 2.0, 4.0), (3, 1.9999999, 4.0), (10, 9.5, 5.0), (64, 60.8, 6.0), (5, 4.9, 30.0)]
# (servers, share of calls blocked, erlangs offered), as tables of Erlang B print them: four digits. The first is the worked example of
# Westbay Engineers' Erlang B calculator (erlang.com, "How much traffic?").
PRINTED = [
    (15, 0.01, 8.108),
    (5, 0.01, 1.361),
    (10, 0.01, 4.461),
    (20, 0.01, 12.03),
    (50, 0.01, 37.90),
    (100, 0.01, 84.06),
    (10, 0.05, 6.216),
]

if __name__ == "__main__":
    found = {
        "versions": {"scipy": version("scipy"), "numpy": version("numpy")},
        "erlang": [[servers, offered, *erlang(servers, offered)] for servers, offered in ERLANG],
        "responses": [[*case, float(responses_beyond(*case))] for case in RESPONSES],
        "printed": PRINTED,
    }
    (Path(__file__).parent / "queues.json").write_text(json.dumps(found, indent=1) + "\n")
