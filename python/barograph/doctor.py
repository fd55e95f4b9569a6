"""`barograph doctor`: what this machine has, what it limits, and whether barograph computes what it should.

Exit codes: 0 everything is well, 1 something here will hold it back, 2 it does not work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Finding", "add_command", "examine", "exit_code"]

_OPEN_FILES = 1024
"""A sidecar keeps three files per model and one per connection."""
_MEMORY = 512 << 20
"""Twice what a sidecar of default settings takes at most."""
_CPU_FLAGS = ("sse4_2", "avx2", "bmi2", "avx512f", "avx512dq", "avx512ifma", "neon", "asimd")
_ORDER = {"ok": 0, "info": 0, "warning": 1, "critical": 2}


class Finding(NamedTuple):
    """One line: what was looked at, what was found, what it means.

    verdict: "ok", "info" (nothing is tested), "warning" (it will hold barograph back), "critical" (barograph does not work).
    """

    group: str
    name: str
    value: str
    verdict: str
    reason: str = ""


def add_command(commands: Any) -> None:
    """Puts `doctor` among the commands."""
    doctor = commands.add_parser(
        "doctor",
        help="what this machine has and limits, and a self-test",
        description="Shows versions, processor, limits and extras, and runs a self-test against known answers. Exit codes: 0 everything "
        "is well, 1 something here will hold barograph back, 2 it does not work.",
    )
    doctor.add_argument("--json", action="store_true", help="what was found as JSON")
    doctor.add_argument("--no-sidecar", action="store_true", help="leave out the sidecar, which is started on loopback for a second")
    doctor.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    findings = []
    for finding in examine(sidecar=not options.no_sidecar):
        findings.append(finding)
        if not options.json:
            _print(finding, findings[-2].group if len(findings) > 1 else None)
    code = exit_code(findings)
    if options.json:
        print(json.dumps({"exit_code": code, "findings": [finding._asdict() for finding in findings]}, ensure_ascii=False))
    else:
        print(
            "\n" + ("everything is well", "it works; see the lines marked △", "barograph does not work here; see the lines marked ▲")[code]
        )
    return code


def exit_code(findings: list[Finding]) -> int:
    """0, 1 or 2: the worst of the findings."""
    return max((_ORDER[finding.verdict] for finding in findings), default=0)


def _print(finding: Finding, last: str | None) -> None:
    from barograph.verdicts import glyph

    if finding.group != last:
        print(f"\n{finding.group}" if last else finding.group)
    sign = "·" if finding.verdict == "info" else glyph(finding.verdict)
    reason = f"  ({finding.reason})" if finding.reason else ""
    print(f"  {sign} {finding.name:<22} {finding.value}{reason}", flush=True)


def examine(sidecar: bool = True) -> Iterator[Finding]:
    """Everything that is looked at, one after another; nothing here raises."""
    yield from _versions()
    yield from _processor()
    yield from _limits()
    yield from _extras()
    yield from _self_test(sidecar)


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "python", f"{platform.python_version()} {platform.python_implementation()}", "info", sys.executable)
    yield Finding("versions", "platform", platform.platform(), "info")
    try:
        from barograph import _barograph
    except ImportError as error:
        yield Finding("versions", "barograph", "cannot be loaded", "critical", f"its extension is missing or of another platform: {error}")
        return
    yield Finding("versions", "barograph", _barograph.__version__, "ok", str(_barograph.__file__))
    for name, requirement in _requirements():
        yield _installed("versions", name, requirement, needed=True)
    if (gil := getattr(sys, "_is_gil_enabled", None)) is not None:
        yield Finding("versions", "GIL", "on" if gil() else "off", "info")


def _processor() -> Iterator[Finding]:
    text = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    yield Finding("processor", "model", model[1] if model else platform.processor() or platform.machine(), "info")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    beside = f"the control group gives {quota:g} of them" if quota is not None and quota < cores else ""
    yield Finding("processor", "cores", str(cores), "info", beside)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    if known:
        yield Finding("processor", "features", " ".join(flag for flag in _CPU_FLAGS if flag in known) or "none of those used", "info")
    try:
        from barograph import _barograph

        for name, kernel in _barograph.kernels().items():
            yield Finding("processor", f"kernel of {name}", kernel, "info", "slower than avx512ifma" if kernel == "portable" else "")
    except ImportError:
        return


def _limits() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:
        yield Finding("limits", "open files", "unknown on this platform", "info")
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        said = f"{_limit(soft)} (at most {_limit(hard)})"
        few = soft != resource.RLIM_INFINITY and soft < _OPEN_FILES
        reason = f"a sidecar wants at least {_OPEN_FILES:,}: `ulimit -n {_OPEN_FILES}`, or LimitNOFILE= of its unit" if few else ""
        yield Finding("limits", "open files", said, "warning" if few else "ok", reason)
        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            low = soft < 4 * _MEMORY
            reason = "threads reserve more than they use: raise `ulimit -v`" if low else ""
            yield Finding("limits", "address space", f"{soft >> 20:,} MB", "warning" if low else "ok", reason)
    memory, source = _memory()
    if memory is not None:
        low = memory < _MEMORY
        reason = f"a sidecar takes up to 256 MB, so {_MEMORY >> 20} MB are wanted" if low else source
        yield Finding("limits", "memory", f"{memory >> 20:,} MB", "warning" if low else "ok", reason)
    yield _folder()
    clock = time.get_clock_info("time")
    coarse = clock.resolution > 1e-3
    yield Finding("limits", "clock", f"{clock.resolution:g} s", "warning" if coarse else "ok", "coarser than latencies" if coarse else "")


def _folder() -> Finding:
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"barograph")
            file.flush()
            os.fsync(file.fileno())
            free = _free(Path(file.name).parent)
    except OSError as error:
        return Finding("limits", "temporary folder", "cannot be written to", "warning", f"{error.strerror or error}: set TMPDIR")
    low = free is not None and free < 1 << 30
    said = "writable" if free is None else f"{free >> 20:,} MB free"
    return Finding("limits", "temporary folder", said, "warning" if low else "ok", tempfile.gettempdir())


def _free(folder: Path) -> int | None:
    import shutil

    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _memory() -> tuple[int | None, str]:
    """What this process may use: of the machine, or of its control group."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    total = int(found[1]) << 10 if found else None
    if total is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _read(path).strip()
        if limit.isdigit() and (total is None or int(limit) < total):
            return int(limit), "the limit of the control group"
    return total, "of the machine"


def _quota() -> float | None:
    """Cores that the control group gives, if it limits them."""
    parts = _read("/sys/fs/cgroup/cpu.max").split()
    if len(parts) == 2 and all(part.isdigit() and int(part) > 0 for part in parts):
        return int(parts[0]) / int(parts[1])
    return None


def _requirements() -> list[tuple[str, str]]:
    """What barograph needs at run time: names and requirements."""
    return [(name, rest) for name, rest, extra in _stated() if extra is None]


def _stated() -> list[tuple[str, str, str | None]]:
    """Names, versions and extras of the installed package's requirements."""
    try:
        lines = metadata.requires("barograph") or []
    except metadata.PackageNotFoundError:
        lines = []
    out = []
    for line in lines:
        found = re.match(r"([A-Za-z0-9._-]+)\s*([^;]*)(?:;.*extra\s*==\s*['\"]([^'\"]+)['\"])?", line)
        if found:
            out.append((found[1], found[2].strip(), found[3]))
    return out


def _installed(group: str, name: str, requirement: str, needed: bool) -> Finding:
    """Whether a package is there, and new enough."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(
            group, name, "not installed", "critical" if needed else "info", f"needs {name} {requirement}".strip() if needed else ""
        )
    least = re.search(r">=\s*([0-9.]+)", requirement)
    if least and _numbers(version) < _numbers(least[1]):
        return Finding(group, name, version, "critical" if needed else "warning", f"needs {requirement}")
    return Finding(group, name, version, "ok")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _extras() -> Iterator[Finding]:
    extras: dict[str, list[tuple[str, str]]] = {}
    for name, requirement, extra in _stated():
        if extra is not None:
            extras.setdefault(extra, []).append((name, requirement))
    for extra, packages in sorted(extras.items()):
        found = [_installed("extras", name, requirement, needed=False) for name, requirement in packages]
        absent = [one.name for one in found if one.value == "not installed"]
        if absent:
            yield Finding("extras", extra, "not installed", "info", f"pip install 'barograph[{extra}]'")
            continue
        old = next((one for one in found if one.verdict == "warning"), None)
        said = ", ".join(f"{one.name} {one.value}" for one in found)
        yield Finding("extras", extra, said, "ok" if old is None else "warning", "" if old is None else f"{old.name} {old.reason}")


def _self_test(sidecar: bool) -> Iterator[Finding]:
    tests: list[tuple[str, Callable[[], str]]] = [
        ("profile", _profile_is_exact),
        ("merge", _merge_is_concatenation),
        ("compare", _shift_is_found),
        ("detector", _change_is_found),
        ("snapshot", _snapshot_comes_back),
    ]
    if sidecar and _has_sidecar():
        tests.append(("sidecar", _sidecar_answers))
    for name, test in tests:
        began = time.perf_counter()
        try:
            said = test()
        except Exception as error:
            # Whatever it is, the user has to see it here.
            yield Finding("self-test", name, "failed", "critical", f"{type(error).__name__}: {error}")
        else:
            yield Finding("self-test", name, said, "ok", f"{1000 * (time.perf_counter() - began):.0f} ms")


def _has_sidecar() -> bool:
    """Builds for Windows are without it; one that cannot be loaded at all is told elsewhere."""
    try:
        from barograph import _barograph
    except ImportError:
        return True
    return hasattr(_barograph, "serve")


def _expect(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ArithmeticError(f"{what} must be {expected!r}, got {found!r}")


def _profile_is_exact() -> str:
    """Sums and moments of 1 … 1000, with a null, a NaN and an infinity among them, against their closed forms."""
    from barograph.profiles import profile

    column = profile({"x": [*map(float, range(1, 1001)), None, float("nan"), float("inf")]})["x"]
    _expect("count", (column.count, column.positive_infinity_count), (1003, 1))
    _expect("mean", column.mean, 500.5)
    # Of 1 … n: (n^2 - 1) / 12 as a population, n (n + 1) / 12 as a sample.
    _expect("variance", column.variance in (999_999 / 12, 1000 * 1001 / 12), True)
    median = column.quantile(0.5)
    _expect("median within 0.54 %", median is not None and abs(median - 500) <= 0.0054 * 500, True)
    return "mean 500.5 and variance of 1 … 1000"


def _merge_is_concatenation() -> str:
    from barograph.profiles import profile

    left, right = {"x": [0.1 * i for i in range(777)]}, {"x": [1e9 / (i + 1) for i in range(333)]}
    both = {"x": [*left["x"], *right["x"]]}
    _expect("bytes of the merged profile", (profile(right) + profile(left)).to_bytes() == profile(both).to_bytes(), True)
    return "two parts give the bytes of the whole"


def _shift_is_found() -> str:
    """PSI of counts against its formula, and a report on a shifted column beside one that stays."""
    import math

    from barograph import scores
    from barograph.drift import compare
    from barograph.references import Reference

    expected = (0.5 - 0.25) * math.log(0.5 / 0.25) + (0.5 - 0.75) * math.log(0.5 / 0.75)
    found = scores.psi([500_000, 500_000], [250_000, 750_000]).value
    _expect("psi within 0.001", found is not None and abs(found - expected) < 1e-3, True)
    values = [float(i * 7919 % 10_007) for i in range(5000)]
    reference = Reference({"moved": values, "stayed": values})
    rows = compare(reference, {"moved": [value + 3000 for value in values], "stayed": values}).to_dict()["rows"]
    verdicts = {row["column"]: row["verdict"] for row in rows if row["method"] == "psi"}
    _expect("verdicts", verdicts, {"moved": "critical", "stayed": "ok"})
    return f"PSI {found:.4f}, a shift is critical and no shift is ok"


def _change_is_found() -> str:
    from barograph.detectors import Adwin

    found = Adwin().update_many([float(i % 2) for i in range(2000)] + [float(i % 2 + 5) for i in range(2000)])
    first = int(found[0]) if len(found) else -1
    _expect("the first change within 64 values of 2000", 2000 <= first <= 2064, True)
    return f"a change at 2000 is found at {first}"


def _snapshot_comes_back() -> str:
    from barograph.errors import SnapshotError
    from barograph.profiles import Profile, profile

    data = profile({"x": [1.0, 2.0, 3.0], "name": ["a", "b", None]}).to_bytes()
    _expect("bytes read and written again", Profile.from_bytes(data).to_bytes() == data, True)
    try:
        Profile.from_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    except SnapshotError:
        return f"{len(data)} bytes, and a changed one is refused"
    raise ArithmeticError("a snapshot with a changed byte must be refused, it was read")


def _sidecar_answers() -> str:
    """Starts a sidecar in a folder of its own, sends it events, and asks for their count."""
    import subprocess
    import urllib.request

    token = "barograph-doctor-" + os.urandom(16).hex()
    with tempfile.TemporaryDirectory(prefix="barograph-doctor-") as folder:
        # A port that was free a moment ago: the sidecar cannot tell one that the system chose.
        port = _free_port()
        command = [sys.executable, "-m", "barograph", "serve", "--data", f"{folder}/data", "--listen", f"127.0.0.1:{port}"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "BAROGRAPH_TOKEN": token})

        def ask(path: str, body: bytes | None = None) -> Any:
            url = f"http://127.0.0.1:{port}{path}"
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"}
            # No proxy of the environment stands between a machine and itself.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(urllib.request.Request(url, body, headers), timeout=5) as answer:
                return json.loads(answer.read())

        try:
            ended = time.monotonic() + 20
            while True:
                try:
                    ask("/v1/models")
                    break
                except OSError as error:
                    if process.poll() is not None or time.monotonic() > ended:
                        said = (Path(folder) / "log").read_text(errors="replace").strip().splitlines()
                        raise RuntimeError(f"it does not answer: {said[-1] if said else error}") from error
                    time.sleep(0.02)
            _expect("events accepted", ask("/v1/models/doctor/events", b'{"x": 1.5}\n' * 100)["accepted"], 100)
            _expect("events counted", [model["events"] for model in ask("/v1/models")["models"]], [100])
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return "100 events over loopback were counted"


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _limit(value: int) -> str:
    return "unlimited" if value < 0 or value > 1 << 60 else f"{value:,}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
