"""A report where gates are looked at: JUnit XML for test runners, Markdown for the summary of a job."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from barograph.verdicts import glyph, sorted_columns

__all__ = ["junit", "markdown"]

_UNJUDGED = ("insufficient", "invalid")


def junit(document: dict[str, Any], summary: str, failing: tuple[str, ...]) -> bytes:
    """One test case per tested column: a failure at these verdicts, an error where a feature could not be judged."""
    tested = [column for column in sorted_columns(document) if column["verdict"]]
    failed = [column for column in tested if column["verdict"] in failing]
    unjudged = [column for column in tested if column["verdict"] in _UNJUDGED and column["role"] == "feature"]
    suite = ElementTree.Element(
        "testsuite", name="barograph", tests=str(len(tested)), failures=str(len(failed)), errors=str(len(unjudged)), skipped="0"
    )
    for column in tested:
        case = ElementTree.SubElement(suite, "testcase", classname="drift", name=_printable(column["column"]))
        text = _printable(column["reason"] or "")
        if column in failed:
            ElementTree.SubElement(case, "failure", message=text, type=column["verdict"]).text = _moved(column)
        elif column in unjudged:
            ElementTree.SubElement(case, "error", message=text, type=column["verdict"])
    ElementTree.SubElement(suite, "system-out").text = _printable(summary)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    out: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return out


def markdown(document: dict[str, Any], summary: str, most: int = 50) -> str:
    """A heading and a table of the tested columns, worst first."""
    tested = [column for column in sorted_columns(document) if column["verdict"]]
    lines = [f"### barograph: {summary}", "", "| column | verdict | PSI | reason |", "|---|---|---:|---|"]
    for column in tested[:most]:
        score = "" if column["score"] is None else f"{column['score']:.3f}"
        cells = [column["column"], f"{glyph(column['verdict'])} {column['verdict']}", score, column["reason"] or ""]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    if len(tested) > most:
        lines.append(f"| {len(tested) - most} more | | | |")
    rows = f"{document['n_current']:,} rows against {document['n_reference']:,}"
    return "\n".join([*lines, "", f"{rows}, reference `{document['reference'][:8]}`", ""])


def _moved(column: dict[str, Any]) -> str:
    moved = [f"{m['bin']}: {100 * m['reference']:.1f} % -> {100 * m['current']:.1f} %" for m in column["moved"][:5]]
    return _printable("\n".join(moved))


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c in "\t\n" or (c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff") else "\ufffd" for c in text)


def _cell(text: str) -> str:
    """Text that stays inside its cell and is no markup."""
    out = "".join("\\" + c if c in "\\|`*_[]<>#!~" else c for c in _printable(text))
    return out.replace("\n", " ").replace("\t", " ")
