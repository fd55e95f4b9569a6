"""What `barograph doctor` finds, and that it finds what is broken."""

import json
import resource
import subprocess
import sys

import pytest
from barograph import cli, doctor


def findings(capsys, *arguments):
    code = cli.main(["doctor", "--json", *arguments])
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    return code, {(one["group"], one["name"]): one for one in document["findings"]}


def test_a_sound_machine_passes_and_says_what_runs(capsys):
    code, found = findings(capsys)
    assert code in (0, 1), [one for one in found.values() if one["verdict"] == "critical"]
    tests = [name for group, name in found if group == "self-test"]
    assert tests == ["profile", "merge", "compare", "detector", "snapshot", "sidecar"]
    assert all(found["self-test", name]["verdict"] == "ok" for name in tests)
    assert found["processor", "kernel of moments"]["value"] in ("avx512ifma", "portable")
    flags = found.get(("processor", "features"), {"value": ""})["value"].split()
    assert (found["processor", "kernel of moments"]["value"] == "avx512ifma") == ("avx512ifma" in flags and "avx512dq" in flags)


def test_a_person_reads_lines_and_a_verdict(capsys):
    cli.main(["doctor", "--no-sidecar"])
    said = capsys.readouterr().out
    assert "self-test\n  ● profile" in said
    assert "sidecar " not in said
    assert said.strip().splitlines()[-1] in ("everything is well", "it works; see the lines marked △")


def test_few_open_files_are_a_warning():
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    command = [sys.executable, "-m", "barograph", "doctor", "--no-sidecar"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=few, check=False)
    assert done.returncode == 1, done.stderr
    assert "△ open files             256 (at most 256)  (a sidecar wants at least 1,024" in done.stdout
    assert done.stdout.endswith("it works; see the lines marked △\n")


def test_a_wrong_result_is_found(capsys, monkeypatch):
    from barograph import detectors

    monkeypatch.setattr(detectors.Adwin, "update_many", lambda self, values: [10])
    code, found = findings(capsys, "--no-sidecar")
    assert code == 2
    assert found["self-test", "detector"]["verdict"] == "critical"
    assert "must be True, got False" in found["self-test", "detector"]["reason"]


def test_an_extension_that_cannot_be_loaded_is_told():
    code = "import sys; sys.modules['barograph._barograph'] = None; from barograph import cli; sys.exit(cli.main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "▲ barograph              cannot be loaded  (its extension is missing or of another platform" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_sidecar_that_does_not_start_is_told(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_free_port", lambda: 0)
    monkeypatch.setenv("BAROGRAPH_TOKEN", "")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    code, found = findings(capsys)
    assert code == 2
    assert "does not answer" in found["self-test", "sidecar"]["reason"]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("numpy>=2.0", ("numpy", ">=2.0", None)),
        ('grpcio>=1.70 ; extra == "grpc"', ("grpcio", ">=1.70", "grpc")),
        ("altair (>=5.5) ; extra == 'plot'", ("altair", "(>=5.5)", "plot")),
    ],
)
def test_requirements_are_read(line, wanted, monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: [line])
    assert doctor._stated() == [wanted]


def test_an_old_package_is_told(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "1.9.3")
    assert doctor._installed("versions", "numpy", ">=2.0", needed=True).verdict == "critical"
    # As numbers, not as text: 1.9 is older than 1.10.
    assert doctor._installed("extras", "numpy", ">=1.10", needed=False).verdict == "warning"
    assert doctor._installed("extras", "numpy", ">=1.9", needed=False).verdict == "ok"


def test_a_build_without_the_sidecar_says_so(monkeypatch, capsys):
    from barograph import _barograph

    monkeypatch.delattr(_barograph, "serve")
    for command in (["serve"], ["store", "check"], ["bench", "sidecar"]):
        assert cli.main(command) == 2
        assert "the sidecar runs on Linux and macOS, this build is without it" in capsys.readouterr().err
    assert ("self-test", "sidecar") not in findings(capsys)[1]


def test_importing_barograph_costs_less_than_a_third_of_importing_numpy():
    """About 5 ms of CPU here; as a ratio, since how fast a processor is says nothing."""

    def seconds(code):
        timed = f"import sys, time; began = time.process_time(); {code}; print(time.process_time() - began)"
        runs = [subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True) for _ in range(3)]
        return min(float(run.stdout) for run in runs)

    assert seconds("import barograph") < seconds("import numpy") / 3
