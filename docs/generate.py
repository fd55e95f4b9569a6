"""Pages that are made of the code while the site is built: the Python reference, the command line, keys of TOML files, HTTP, benchmarks.

A hook of mkdocs. Nothing of it is kept: what it says cannot be older than the code.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# In the order a reader meets them; `methods/` explains what the families compute.
MODULES = {
    "profiles": "Frames as profiles",
    "references": "What current rows are compared with",
    "schemas": "Kinds and roles",
    "drift": "Comparing",
    "reports": "What a comparison found",
    "monitors": "A model in production",
    "client": "A sidecar from Python",
    "feedback": "Labels that come late",
    "histories": "One timeline of a model",
    "plots": "Pictures",
    "widgets": "Live views",
    "causes": "Why a metric changed",
    "conditions": "When to fit again",
    "triggers": "Retrain requests",
    "lineages": "Accepted references",
    "gates": "Before a release",
    "rollout": "During a release",
    "decisions": "What is decided",
    "rollbacks": "What a decision does",
    "backtests": "A log replayed through a policy",
    "privacies": "Columns changed before they are counted",
    "webhooks": "Handing requests over",
    "scores": "Distances of columns",
    "sketches": "Summaries of streams",
    "row_sketches": "Summaries of rows",
    "detectors": "Changes of one number",
    "metrics": "Quality by labels",
    "estimates": "Quality without labels",
    "sequences": "Limits valid at any time",
    "testing": "Laws as checks for tests",
    "errors": "Errors",
}

PER_MODEL = {
    "roles": "Which field is what, as in a model's PUT.",
    "learn": "Of how many events, and of how many days at least, the reference is made.",
    "segments": "Columns of which every value is counted apart.",
    "privacy": "What happens to columns before they are counted.",
    "examples": "How many ids an alert may name.",
    "models": "A policy, see below.",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages before the site is laid out."""
    pages = {
        "reference/cli.md": command_line(),
        "reference/toml.md": toml_keys(),
        "reference/http.md": http(),
        "benchmarks.md": benchmarks(),
        "reference/python/index.md": contents(),
        **{f"reference/python/{name}.md": f"# barograph.{name}\n\n::: barograph.{name}\n" for name in modules()},
    }
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    return files


def modules() -> dict[str, str]:
    """Those that are there: parts land one after another."""
    found = {name: said for name, said in MODULES.items() if (ROOT / "python/barograph" / f"{name}.py").exists()}
    adapters = sorted(path.stem for path in (ROOT / "python/barograph/adapters").glob("*.py") if not path.stem.startswith("_"))
    found |= {f"adapters.{name}": "An adapter" for name in adapters}
    scaling = ROOT / "python/barograph/scaling"
    if scaling.exists():
        found |= {f"scaling.{path.stem}": "Scaling out" for path in sorted(scaling.glob("*.py")) if not path.stem.startswith("_")}
    return found


def contents() -> str:
    """A table of all public names at the top, and of the modules."""
    import barograph

    # What is no name of a module is one itself.
    homes = {name: barograph._HOMES.get(name, name) for name in barograph.__all__}
    names = "".join(f"| `bg.{name}` | [{home}]({home}.md) |\n" for name, home in sorted(homes.items()) if home in modules())
    listed = "".join(f"| [barograph.{name}]({name}.md) | {said} |\n" for name, said in modules().items())
    return (
        "# Python\n\n`import barograph as bg` loads neither numpy nor polars; names are loaded when they are first used.\n\n"
        f"| name | module |\n|---|---|\n{names}\n## Modules\n\n| module | |\n|---|---|\n{listed}"
    )


def command_line() -> str:
    """Every command with its options, from the parsers themselves."""
    from barograph import cli

    parser = cli._parser()
    out = [
        "# Command line",
        "",
        "Exit codes everywhere: 0 pass, 1 drift or a failed gate, 2 usage or data error, 3 could not be judged.",
        "",
    ]
    out += [*_commands(parser, 2)]
    return "\n".join(out) + "\n"


def _commands(parser: argparse.ArgumentParser, depth: int) -> list[str]:
    out = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in dict(action.choices).items():
                out += [f"{'#' * depth} barograph {' '.join(command.prog.split()[1:]) or name}", "", command.description or "", ""]
                rows = [_option(one) for one in command._actions if not isinstance(one, argparse._SubParsersAction | argparse._HelpAction)]
                if rows:
                    out += ["| | |", "|---|---|", *rows, ""]
                out += _commands(command, depth + 1)
    return out


def _option(action: argparse.Action) -> str:
    shown = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    value = "" if action.nargs == 0 or (action.option_strings and isinstance(action, argparse._StoreTrueAction)) else f" {shown}"
    if action.choices:
        value = " " + "\\|".join(str(choice) for choice in action.choices)
    name = ", ".join(f"{word}{value if word.startswith('--') or len(action.option_strings) == 1 else ''}" for word in action.option_strings)
    said = (action.help or "") % {"default": action.default, "prog": "barograph"} if action.help else ""
    return f"| `{name or str(shown).strip()}` | {said.replace('|', chr(92) + '|')} |"


def toml_keys() -> str:
    """Keys of a sidecar's file and of a policy, with what the code says of them and the defaults that it has."""
    from barograph import _barograph

    config = fields("rust/server/src/config.rs", "Config") | PER_MODEL
    policy = fields("rust/engine/src/policy.rs", "Policy")
    settings = fields("rust/engine/src/settings.rs", "Settings")
    defaults = json.loads(_barograph.policy_from_json("{}"))
    out = [
        "# TOML keys",
        "",
        "`barograph config check FILE` says what is wrong with a file, with its line and the nearest key. What each key is for:",
        "[the sidecar](../guides/sidecar.md#configuration), [alerts](../concepts/alerts.md).",
        "",
        "## Sidecar",
        "",
        "At the top of the file of `barograph serve --config`.",
        "",
        "| key | |",
        "|---|---|",
        *(f"| `{name}{'.NAME' if name in PER_MODEL else ''}` | {config[name]} |" for name in _barograph.config_keys()),
        "",
        "## Policy",
        "",
        "In `[models.NAME]` of the sidecar's file, or at the top of a file for `bg.Monitor(policy=)` and `barograph backtest`.",
        "",
        "| key | default | |",
        "|---|---|---|",
        *(f"| `{name}` | {_default(name, defaults.get(name))} | {said} |" for name, said in policy.items()),
        "",
        "## Settings of the comparison",
        "",
        "In `settings` of a policy.",
        "",
        "| key | default | |",
        "|---|---|---|",
        *(f"| `settings.{name}` | {_default(name, defaults.get('settings', {}).get(name))} | {said} |" for name, said in settings.items()),
    ]
    return "\n".join(out) + "\n"


def _default(name: str, value: Any) -> str:
    if value is None or (isinstance(value, dict) and name == "settings"):
        return ""
    if isinstance(value, str) and value.endswith("ns") and value[:-2].isdigit():
        seconds = int(value[:-2]) // 10**9
        for size, unit in ((604_800, "w"), (86_400, "d"), (3600, "h"), (60, "m")):
            if seconds and seconds % size == 0:
                return f'`"{seconds // size}{unit}"`'
    if isinstance(value, dict):
        return ", ".join(f"{key} {_default(key, one)}" for key, one in value.items()) or "none"
    return f"`{json.dumps(value)}`"


def fields(path: str, struct: str) -> dict[str, str]:
    """The documented fields of a struct, by the words that stand above them."""
    text = (ROOT / path).read_text(encoding="utf-8")
    body = re.search(rf"struct {struct} \{{(.*?)\n\}}", text, re.S)
    if body is None:
        raise LookupError(f"{path} has no struct {struct}")
    found = re.findall(r"((?:\s*///[^\n]*\n)+)(?:\s*#\[[^\n]*\n)*\s*pub(?:\([^)]*\))? (\w+):", body[1])
    return {name: " ".join(line.strip().removeprefix("///").strip() for line in said.strip().splitlines()) for said, name in found}


def http() -> str:
    """Every operation of the sidecar, from its OpenAPI document."""
    document = json.loads((ROOT / "rust/server/src/openapi.json").read_text(encoding="utf-8"))
    out = [
        "# HTTP",
        "",
        "What a sidecar answers, from the OpenAPI document that it serves itself. [The guide](../guides/sidecar.md) has examples. Every",
        "error is `application/problem+json`: type, title, status, detail, and a hint where one is known.",
        "",
    ]
    for path, operations in document["paths"].items():
        for method in ("get", "put", "post", "delete"):
            operation = operations.get(method)
            if operation is None:
                continue
            out += [f"## {method.upper()} {path}", "", operation.get("summary", ""), ""]
            if operation.get("description"):
                out += [operation["description"], ""]
            parameters = [_resolved(document, one) for one in (*operations.get("parameters", []), *operation.get("parameters", []))]
            if parameters:
                out += ["| parameter | in | |", "|---|---|---|"]
                out += [f"| `{one['name']}` | {one['in']} | {_cell(one.get('description', ''))} |" for one in parameters]
                out += [""]
            body = _resolved(document, operation.get("requestBody", {})).get("content", {})
            if body:
                out += ["Body: " + ", ".join(f"`{kind}`" for kind in body), ""]
            out += ["| status | |", "|---|---|"]
            for status, answer in operation["responses"].items():
                answer = _resolved(document, answer)
                kinds = ", ".join(f"`{kind}`" for kind in answer.get("content", {}))
                out += [f"| {status} | {_cell(answer.get('description', ''))}{' ' + kinds if kinds else ''} |"]
            out += [""]
    return "\n".join(out) + "\n"


def _resolved(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    place = part.get("$ref")
    if place is None:
        return part
    found: Any = document
    for step in place.removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def benchmarks() -> str:
    """The page of `benches/`, with its caveats before its figures."""
    text = (ROOT / "benches/README.md").read_text(encoding="utf-8")
    caveats = """# Benchmarks

Read first:

- Figures hold for the machine, the versions and the workload beside them; yours differ. Ratios to a peer come from one run on one machine.
- Peers do other work: NannyML makes one score where `compare` makes a profile and every score, Evidently also draws, DataSketches' Python
  binding takes one call per value where it has no array form. Each case says what it compares.
- CPU seconds are counted, not wall time, where other programs share the cores; the least of several rounds is given.
- A missed target stands in the table as it is; what fell short, and what bounds it, is listed below the table.
- Everything can be repeated: `make bench` installs the pinned peers and prints the table; `barograph bench sidecar` measures a sidecar.

"""
    return caveats + re.sub(r"^# Benchmarks\n", "", text).lstrip()
