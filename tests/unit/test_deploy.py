"""What stands in `deploy/` and in the pages about the sidecar, held against the sidecar itself; no network, no container, no cluster."""

import contextlib
import functools
import json
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest
from barograph import _barograph, cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "barograph"
README = ROOT / "README.md"
GUIDE = ROOT / "docs" / "guides" / "sidecar.md"
SECURITY = ROOT / "docs" / "concepts" / "security.md"
UNIT = DEPLOY / "systemd" / "barograph.service"
SERVER = ROOT / "rust" / "server" / "src"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
MANIFESTS = [path for path in FILES if path.suffix in (".yaml", ".yml") and CHART / "templates" not in path.parents]
TEMPLATES = sorted((CHART / "templates").iterdir())
# What old versions of Prometheus do not know.
NEW_KEYS = ("scrape_native_histograms", "always_scrape_classic_histograms")


@pytest.fixture(scope="module")
def yaml():
    return pytest.importorskip("yaml", reason="PyYAML comes with mkdocs, in the environment of lint")


def tool(name):
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def free_ports(count):
    """Ports that nobody has, nor will have for an outgoing connection."""
    found = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)


class Live:
    """A sidecar that runs, in a folder as a reader of the guide has it."""

    def __init__(self, folder):
        self.folder = folder
        self.port, self.health = free_ports(2)
        addresses = [f"--listen=127.0.0.1:{self.port}", f"--health-listen=127.0.0.1:{self.health}"]
        environment = {name: value for name, value in os.environ.items() if name != "BAROGRAPH_TOKEN"}
        command = [sys.executable, "-m", "barograph", "serve", *addresses]
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE)
        end = time.monotonic() + 60
        while self.status("/readyz") != 200:
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, "it does not become ready"
            time.sleep(0.02)

    def status(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}{path}", timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    running = Live(tmp_path_factory.mktemp("deploy"))
    yield running
    running.process.terminate()
    running.process.communicate(timeout=30)


def blocks(path, *languages):
    """Fenced blocks of a page, in their order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(), re.S | re.M)
    return [(language, text) for language, text in found if not languages or language in languages]


def joined(text):
    """Lines of a shell without continuations."""
    return text.replace("\\\n", " ")


def checked(text, folder, monkeypatch):
    """Has the sidecar read a configuration whose secrets stand in files and variables."""
    found = {"url": "https://receiver.example/", "secret": "0123456789abcdef0123456789abcdef"}
    for name, content in found.items():
        (folder / name).write_text(f"{content}\n")
    for name in re.findall(r'env = "(\w+)"', text):
        monkeypatch.setenv(name, found["secret"])
    text = re.sub(r'(url = { file = )"[^"]+"', rf'\1"{folder / "url"}"', text)
    text = re.sub(rf'file = "(?!{re.escape(str(folder))})[^"]+"', f'file = "{folder / "secret"}"', text)
    _barograph.check_config(text, "the file")


# Containers and commands.


def dockerfile():
    """Instructions of the last stage, and the whole text."""
    text = joined((DEPLOY / "Dockerfile").read_text())
    stages = re.split(r"^FROM ", text, flags=re.M)
    return stages[-1], text


def instruction(stage, name):
    return re.findall(rf"^\s*{name} (.*)$", stage, re.M)


def rendered_arguments(text):
    """Arguments in a template or manifest, as they stand line by line."""
    block = re.search(r"^( +)args:\n((?:\1 .*\n)+)", text, re.M)
    return [line.strip()[2:] for line in block[2].splitlines() if line.strip().startswith("- ")]


def commands():
    """Every `barograph serve` of the files, by where it stands."""
    stage, _ = dockerfile()
    entry = json.loads(instruction(stage, "ENTRYPOINT")[0])
    assert entry == ["barograph"]
    out = {"Dockerfile": json.loads(re.search(r"^CMD (\[.*\])$", stage, re.M)[1])}
    for name, path in (("sidecar", DEPLOY / "kubernetes" / "sidecar.yaml"), ("chart", CHART / "templates" / "statefulset.yaml")):
        out[name] = rendered_arguments(path.read_text())
    composed = re.search(r"^ {4}command:\n((?: {6}- .*\n)+)", (DEPLOY / "compose.yaml").read_text(), re.M)[1]
    out["compose"] = [line.strip()[2:] for line in composed.splitlines()]
    out["systemd"] = shlex.split(re.search(r"^ExecStart=\S+/barograph (.*)$", UNIT.read_text(), re.M)[1])
    pages = {"README": DEPLOY / "README.md", "guide": GUIDE}
    for name, page in pages.items():
        for language, text in blocks(page, "console", "sh"):
            for at, line in enumerate(re.findall(r"(?:^|[ $])(serve(?: .*)?)$", joined(text), re.M)):
                out[f"{name} {language} {at} {line}"] = shlex.split(line)
    return out


@pytest.mark.parametrize(("where", "arguments"), commands().items(), ids=lambda value: value if isinstance(value, str) else "")
def test_options_of_serve_exist(where, arguments):
    options = cli._parser().parse_args(arguments)
    assert options.command == "serve"
    addresses = [f'"{address}"' for address in options.listen]
    if not any("0.0.0.0" in address for address in addresses):
        # What only this machine can reach starts without more.
        _barograph.check_config(f"listen = [{', '.join(addresses)}]\n" if addresses else "", where)
    else:
        with pytest.raises(cli.InvalidArgumentError, match="tokens"):
            _barograph.check_config(f"listen = [{', '.join(addresses)}]\n", where)
        assert where == "chart" or "--config" in arguments or any(argument.startswith("--config=") for argument in arguments)


def test_commands_are_found_everywhere():
    places = {name.split()[0] for name in commands()}
    assert places == {"Dockerfile", "sidecar", "chart", "compose", "systemd", "README", "guide"}


def test_the_image_runs_without_rights():
    stage, text = dockerfile()
    users = instruction(stage, "USER")
    assert users, "without USER it is root"
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users), "a name cannot be seen not to be root"
    assert stage.index("\nUSER ") < stage.index("\nENTRYPOINT ")
    # Whoever mounts a folder of this name has to find it his own.
    volume = instruction(stage, "VOLUME")[0]
    assert f"-o {users[-1].split(':')[0]}" in stage
    assert volume in stage.split("USER")[0]
    assert "curl" not in text
    assert "ADD " not in text
    assert "apt-get" not in stage, "the last stage installs nothing"


def test_what_the_image_is_built_with_is_fixed():
    _, text = dockerfile()
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", text, re.M))
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", arguments["PYTHON_IMAGE"])
    assert arguments["RUST_VERSION"] == tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    assert "--locked" in text
    for line in re.findall(r"pip install (.*?)(?: &&|$)", text, re.M):
        assert "--require-hashes" in line or "--no-index" in line, line
    images = [image for path in MANIFESTS for image in re.findall(r"^\s*-? ?image: (\S+)$", path.read_text(), re.M)]
    assert len(images) >= 6
    for image in images:
        assert re.search(r":(v?\d|local$)", image) or "@sha256:" in image, f"{image} is another one tomorrow"


def test_locked_versions_are_those_that_the_wheel_needs():
    tool("awk")
    _, text = dockerfile()
    found = {}
    for program in re.findall(r"awk '([^']+)' requirements/test.txt", text):
        locked = subprocess.run(["awk", program, "requirements/test.txt"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for entry in re.split(r"\n(?=\S)", locked.strip()):
            name, _, version = entry.partition("==")
            assert "--hash=sha256:" in entry, f"{name} has no hash"
            found.setdefault(name, []).append(version.split()[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {re.match(r"[\w-]+", requirement)[0] for requirement in project["project"]["dependencies"]}
    assert needed <= set(found)
    assert "maturin" in found
    # A wheel that is installed without its dependencies must find theirs too.
    assert "polars-runtime-32" in found


def test_the_build_gets_its_sources_and_no_more():
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    taken = [rule[1:] for rule in rules if rule.startswith("!")]
    manifest = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = ["Cargo.toml", "Cargo.lock", "pyproject.toml", manifest["project"]["readme"], *manifest["project"]["license-files"]]
    needed += [manifest["tool"]["maturin"]["python-source"], manifest["tool"]["maturin"]["manifest-path"].split("/")[0]]
    _, text = dockerfile()
    needed += [source for source in re.findall(r"^COPY (?!--from)(\S+) ", text, re.M) if source != "."]
    assert set(needed) <= set(taken)
    assert not {".git", ".venv", "deploy", "tests", "target"} & set(taken)
    assert all(any(ROOT.glob(rule)) for rule in taken)


def test_health_check_of_the_image(live):
    stage, _ = dockerfile()
    command = json.loads(re.search(r"HEALTHCHECK .*? CMD (\[.*\])", stage)[1])
    asked = re.search(r"http://(127\.0\.0\.1:\d+)(/\w+)", command[-1])
    options = cli._parser().parse_args(commands()["Dockerfile"])
    assert asked[1] == options.health_listen
    assert command[:2] == ["python", "-c"]

    def code(port):
        program = command[-1].replace(asked[1], f"127.0.0.1:{port}")
        return subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False).returncode

    assert code(live.health) == 0
    assert code(free_ports(1)[0]) != 0


# Manifests.


def documents(yaml, path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def containers(pod):
    return [*pod.get("initContainers", []), *pod["containers"]]


def hardened(pod, container):
    security = pod["securityContext"] | container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False
    names = {volume["name"] for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert len(set(mounts.values())) == len(mounts)
    return names, mounts


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_files_are_yaml(yaml, path):
    class Strict(yaml.SafeLoader):
        """Refuses a key that stands twice, of which YAML takes the last."""

        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{path}: a key stands twice in {keys}"
            return super().construct_mapping(node, deep)

    assert [document for document in yaml.load_all(path.read_text(), Strict) if document]


def test_the_sidecar_of_a_pod(yaml, live, tmp_path, monkeypatch):
    config, deployment = documents(yaml, DEPLOY / "kubernetes" / "sidecar.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (sidecar,) = pod["initContainers"]
    (app,) = pod["containers"]
    assert sidecar["restartPolicy"] == "Always", "it would have to end before the app begins"
    names, mounts = hardened(pod, sidecar)
    assert sidecar["securityContext"]["readOnlyRootFilesystem"] is True
    assert sidecar["resources"]["limits"] == {"cpu": "500m", "memory": "256Mi"}
    options = cli._parser().parse_args(sidecar["args"])
    # Each path lies on a volume: the container's own files cannot be written, and are forgotten.
    for path in (options.config, options.token_file, options.data, options.listen[0].removeprefix("unix:")):
        assert any(Path(mount) == Path(path) or Path(mount) in Path(path).parents for mount in mounts.values()), path
    for container in (sidecar, app):
        for mount in container["volumeMounts"]:
            assert mount["name"] in names
    shared = {mount["name"] for mount in sidecar["volumeMounts"]} & {mount["name"] for mount in app["volumeMounts"]}
    assert shared == {"socket"}, "the app sees neither the data nor the administrator's token"
    (token,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "app-token")
    assert [item["key"] for item in token["items"]] == ["app-token"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(sidecar)
    ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = sidecar[probe]["httpGet"]
        assert options.health_listen == f"0.0.0.0:{ports[asked['port']]}"
        assert live.status(asked["path"]) == 200, asked
    text = config["data"]["barograph.toml"]
    checked(text, tmp_path, monkeypatch)
    secret = next(mount for mount in mounts.values() if mount.endswith("/secret"))
    for path in re.findall(r'file = "([^"]+)"', text):
        assert path.startswith(f"{secret}/")
    # What is on its way and the models have to fit beside each other into the container.
    assert tomllib.loads(text)["memory"] == "192MB"


def test_health_ports_know_nothing_else(live):
    assert live.status("/metrics") == 200
    assert live.status("/v1/models") == 404


def test_the_compose_file(yaml, tmp_path, monkeypatch):
    (compose,) = documents(yaml, DEPLOY / "compose.yaml")
    services = compose["services"]
    assert set(services) == {"barograph", "app", "prometheus", "grafana"}
    assert (DEPLOY / services["barograph"]["build"]["context"] / services["barograph"]["build"]["dockerfile"]).exists()
    for name, service in services.items():
        assert "ALL" in service["cap_drop"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service
        assert service.get("user") is None
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} would be open to others"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"], volume
    sidecar = services["barograph"]
    assert sidecar["read_only"] is True
    assert "ports" not in sidecar
    options = cli._parser().parse_args(sidecar["command"])
    targets = [volume.split(":")[1] for volume in sidecar["volumes"]]
    assert options.config in targets
    assert options.data in targets
    checked((DEPLOY / "barograph.toml").read_text(), tmp_path, monkeypatch)
    (scraped,) = documents(yaml, DEPLOY / "prometheus.yml")[0]["scrape_configs"]
    host, port = scraped["static_configs"][0]["targets"][0].split(":")
    assert host in services
    assert options.health_listen.endswith(f":{port}")


def test_the_app_of_the_compose_file_is_answered(yaml, live):
    (compose,) = documents(yaml, DEPLOY / "compose.yaml")
    program = live.folder / "app.py"
    program.write_text(compose["configs"]["app"]["content"])
    environment = {**os.environ, "BAROGRAPH": f"http://127.0.0.1:{live.port}", "BAROGRAPH_DATA": str(live.folder / "barograph-data")}
    with subprocess.Popen([sys.executable, str(program)], env=environment, stdout=subprocess.PIPE, text=True) as app:
        told = json.loads(app.stdout.readline())
        app.kill()
    assert (told["accepted"], told["rejected_count"], told["mistyped_fields"]) == (200, 0, 0)


def test_no_secret_stands_in_a_file():
    names = r"(?:token|password|secret|routing_key|privacy_key|api_?key|credentials?)"
    stated = re.compile(rf'\b{names}\s*=\s*"[^"$]{{3,}}"|^\s*(?:- )?\w*{names}:\s*["\']?[^\s"\'|>{{$]{{3,}}["\']?$', re.I | re.M)
    assert stated.search('token = "abc123"')
    assert stated.search("  GF_ADMIN_PASSWORD: hunter2")
    assert not stated.search('token = { file = "/x" }\nsecret:\n  secretName: name\n')
    for path in [*FILES, GUIDE, SECURITY]:
        text = path.read_text()
        assert not re.search(r"PRIVATE KEY|\b[0-9a-f]{64}\b", text), path
        assert not re.search(r"^kind: Secret$", text, re.M), f"{path} states a Secret with its content"
        found = [match[0] for match in stated.finditer(text) if "automountServiceAccountToken" not in match[0]]
        assert not found, (path, found)


# Programs that check their own files.


def test_systemd_takes_the_unit(tmp_path):
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    stated = {tuple(line.split("=", 1)) for line in lines}
    wanted = {
        "Type": "exec",
        "ExecReload": "kill -HUP $MAINPID",
        "DynamicUser": "yes",
        "StateDirectory": "barograph",
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "SystemCallFilter": "@system-service",
        "MemoryMax": "300M",
    }
    assert set(wanted.items()) <= stated
    # Connections are files, and the sidecar allows so many of them unless told otherwise.
    assert int(dict(stated)["LimitNOFILE"]) > 12_000
    analyze = tool("systemd-analyze")
    program = re.search(r"^ExecStart=(\S+)", UNIT.read_text(), re.M)[1]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(program, "/bin/true"))
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    version = int(subprocess.run([analyze, "--version"], capture_output=True, text=True, check=True).stdout.split()[1])
    if version >= 250:
        # 0 is no exposure, 100 all of it.
        limited = [analyze, "security", "--offline=yes", "--threshold=20", str(copy)]
        assert subprocess.run(limited, capture_output=True, timeout=60, check=False).returncode == 0


def promtool(*arguments):
    done = subprocess.run([tool("promtool"), "check", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_files(tmp_path):
    text = subprocess.run([tool("promtool"), "--version"], capture_output=True, text=True, check=True)
    version = tuple(int(part) for part in re.search(r"version (\d+)\.(\d+)", text.stdout + text.stderr).groups())
    config = (DEPLOY / "prometheus.yml").read_text()
    assert all(f"\n  {key}: true" in config for key in NEW_KEYS)
    if version < (3, 8):
        config = "\n".join(line for line in config.splitlines() if not line.strip().startswith(NEW_KEYS))
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(DEPLOY / "demo.rules.yml", tmp_path)
    promtool("config", str(tmp_path / "prometheus.yml"))
    promtool("rules", str(tmp_path / "demo.rules.yml"))


def test_dashboard_and_rules_are_those_of_the_configuration(tmp_path, capsys):
    assert cli.main(["dashboards", str(DEPLOY / "barograph.toml"), "-o", str(tmp_path)]) == 0
    capsys.readouterr()
    for path in (DEPLOY / "grafana" / "dashboards" / "demo.dashboard.json", DEPLOY / "demo.rules.yml"):
        again = "`barograph dashboards deploy/barograph.toml` writes it anew"
        assert path.read_text() == (tmp_path / path.name).read_text(), f"{path.name}: {again}"
    dashboard = (DEPLOY / "grafana" / "dashboards" / "demo.dashboard.json").read_text()
    shown = set(re.findall(r"\bbarograph_[a-z_]+", dashboard))
    exposed = set(re.findall(r'"(barograph_[a-z_]+)"', (SERVER / "exposition.rs").read_text()))
    assert len(shown) > 5
    assert {name.removesuffix("_bucket") for name in shown} <= exposed


def test_grafana_finds_its_dashboards(yaml):
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = documents(yaml, provisioning / "datasources" / "prometheus.yml")[0]["datasources"]
    (provider,) = documents(yaml, provisioning / "dashboards" / "barograph.yml")[0]["providers"]
    (compose,) = documents(yaml, DEPLOY / "compose.yaml")
    mounted = dict(volume.split(":")[:2][::-1] for volume in compose["services"]["grafana"]["volumes"])
    assert list((DEPLOY / mounted[provider["options"]["path"]]).glob("*.json"))
    assert source["url"].split("/")[-1].split(":")[0] in compose["services"]


# The chart.


def paths(tree, before=()):
    """Keys of a tree as paths, those of empty tables and of lists as leaves."""
    for key, value in tree.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from paths(value, (*before, key))


def fits(value, schema, where="values"):
    """The part of JSON Schema that the chart's has: enough to see a value that it would refuse."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    kind = schema.get("type")
    assert kind in kinds, f"{where}: {kind}"
    assert type(value) is kinds[kind], where
    if kind == "object":
        assert set(schema.get("required", [])) <= set(value), where
        for key, below in value.items():
            rest = schema.get("additionalProperties", True)
            known = schema.get("properties", {}).get(key, rest)
            assert known is not False, f"{where}.{key} is not known"
            if isinstance(known, dict):
                fits(below, known, f"{where}.{key}")
    elif kind == "array":
        for below in value:
            fits(below, schema.get("items", {}), f"{where}[]")
    assert value in schema.get("enum", [value]), where
    assert kind != "string" or re.search(schema.get("pattern", ""), value), where
    assert kind != "string" or not ("not" in schema and re.search(schema["not"]["pattern"], value)), where


def test_values_fit_their_schema(yaml):
    schema = json.loads((CHART / "values.schema.json").read_text())
    (values,) = documents(yaml, CHART / "values.yaml")
    fits(values, schema)
    assert set(schema["properties"]) - {"global"} == set(values), "what can be stated has a default, and is explained"
    for wrong in ({"colour": 1}, {"persistence": {"enabled": "yes", "size": "1Gi"}}, {"config": '[[tokens]]\nname = "x"'}):
        with pytest.raises(AssertionError):
            fits(values | wrong, schema)


def test_templates_and_values_know_each_other(yaml):
    (values,) = documents(yaml, CHART / "values.yaml")
    known = set(paths(values))
    text = "\n".join(template.read_text() for template in TEMPLATES)
    used = {tuple(found.split(".")) for found in re.findall(r"\.Values\.([A-Za-z0-9_.]+)", text)}
    assert used <= known, f"not in values.yaml: {used - known}"
    # A value that nothing reads is a promise that is not kept.
    leaves = {path for path in known if not any(other[: len(path)] == path and other != path for other in known)}
    read = {leaf for leaf in leaves if any(leaf[: len(path)] == path for path in used)}
    assert leaves == read, f"in no template: {leaves - read}"
    defined = set(re.findall(r'{{-? define "([^"]+)"', text))
    assert set(re.findall(r'include "([^"]+)"', text)) == defined


def test_the_chart_runs_one_sidecar_without_rights():
    text = (CHART / "templates" / "statefulset.yaml").read_text()
    for line in (
        "replicas: 1",
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "drop: [ALL]",
        "type: RuntimeDefault",
        "automountServiceAccountToken: false",
    ):
        assert line in text, line


def test_probes_of_the_chart_are_answered(live):
    text = "\n".join(template.read_text() for template in TEMPLATES)
    asked = re.findall(r"path: (/[a-z]+)$", text, re.M)
    assert len(asked) >= 4
    assert {path: live.status(path) for path in asked} == dict.fromkeys(asked, 200)


def test_versions_are_those_of_the_package(yaml):
    (chart,) = documents(yaml, CHART / "Chart.yaml")
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert chart["appVersion"] == version
    (sidecar,) = re.findall(r"image: registry\.example/barograph:(\S+)", (DEPLOY / "kubernetes" / "sidecar.yaml").read_text())
    assert sidecar == version


@functools.cache
def helm(*arguments):
    done = subprocess.run([tool("helm"), *arguments], cwd=DEPLOY / "helm", capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


TEMPLATE = ("template", "watch", "barograph", "--namespace", "models", "--kube-version", "1.33.0")
ALL = (
    "serviceMonitor.enabled=true,tls.clientAuthority=true,persistence.enabled=false,image.pullSecrets={a},hosts={b.example},podLabels.a=b,"
    "nodeSelector.a=b,priorityClassName=high,serviceMonitor.endpoint.honorLabels=true,image.digest=sha256:" + 64 * "0"
)


def test_helm_takes_the_chart():
    code, out, error = helm("lint", "--strict", "barograph")
    assert code == 0, out + error
    code, _, error = helm(*TEMPLATE, "--set", "tls.secretName=")
    assert code != 0
    assert "secretName" in error


@pytest.mark.parametrize("more", [(), ("--set", ALL)], ids=["as it is", "with everything"])
def test_what_helm_renders(yaml, tmp_path, monkeypatch, more):
    code, out, error = helm(*TEMPLATE, *more)
    assert code == 0, error
    objects = {document["kind"]: document for document in yaml.safe_load_all(out) if document}
    assert {"StatefulSet", "ConfigMap", "Service", "NetworkPolicy"} <= set(objects)
    pod = objects["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    claims = {claim["metadata"]["name"] for claim in objects["StatefulSet"]["spec"].get("volumeClaimTemplates", [])}
    names, mounts = hardened(pod, container)
    assert set(mounts) == names | claims
    assert len(names | claims) == len(names) + len(claims)
    options = cli._parser().parse_args(container["args"])
    text = objects["ConfigMap"]["data"]["barograph.toml"]
    checked(f"listen = {json.dumps(options.listen)}\n{text}", tmp_path, monkeypatch)
    for path in [options.config, options.token_file, *re.findall(r'"(/[^"]+)"', text)]:
        assert any(path.startswith(f"{mount}/") for mount in mounts.values()), path
    name = objects["Service"]["metadata"]["name"]
    assert f"{name}.models.svc" in tomllib.loads(text)["hosts"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in objects["Service"]["spec"]["ports"]} <= ports
    assert {rule["ports"][0]["port"] for rule in objects["NetworkPolicy"]["spec"]["ingress"]} <= ports


def test_kubernetes_takes_the_objects(tmp_path):
    # Its schemas come from the network unless a folder is named.
    schemas = os.environ.get("KUBERNETES_SCHEMAS") or pytest.skip("KUBERNETES_SCHEMAS names no folder of schemas for kubeconform")
    code, out, error = helm(*TEMPLATE)
    assert code == 0, error
    (tmp_path / "chart.yaml").write_text(out)
    files = [str(tmp_path / "chart.yaml"), str(DEPLOY / "kubernetes" / "sidecar.yaml")]
    command = [tool("kubeconform"), "-strict", "-schema-location", schemas, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# The pages.


@pytest.mark.parametrize(("page", "least"), [(GUIDE, 10), (README, 2)], ids=lambda value: getattr(value, "name", ""))
def test_requests_of_the_pages_are_answered_as_they_say(page, least, live):
    tool("curl")
    tool("bash")
    script, expected = [], {}
    found = blocks(page)
    for at, (language, text) in enumerate(found):
        if language == "sh":
            script.append(f"echo '@@{at}@@'\n{text}\necho")
            if at + 1 < len(found) and found[at + 1][0] in ("json", "text"):
                expected[at] = found[at + 1][1]
    assert len(script) >= least
    (live.folder / ".curlrc").write_text("fail-with-body\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CURL_HOME": str(live.folder), "HOME": str(live.folder)}
    text = "\n".join(script).replace("127.0.0.1:7464", f"127.0.0.1:{live.port}")
    command = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, cwd=live.folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    parts = re.split(r"@@(\d+)@@\n", done.stdout)
    said = dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))
    assert done.returncode == 0, (done.stderr, done.stdout[-500:])
    for at, wanted in expected.items():
        # Answers have no line end of their own.
        assert "".join(said[at].split()) == "".join(wanted.split()), found[at][1]
    for text in said.values():
        for taken in re.findall(r'{"accepted".*?}(?=\s|{|$)', text):
            told = json.loads(taken)
            assert (told["rejected_count"], told["mistyped_fields"]) == (0, 0), taken


@pytest.mark.parametrize("page", [GUIDE, SECURITY], ids=lambda page: page.name)
def test_configurations_of_the_pages_are_taken(page, tmp_path, monkeypatch):
    found = blocks(page, "toml")
    assert found
    for _, text in found:
        checked(text, tmp_path, monkeypatch)
    with pytest.raises(cli.InvalidArgumentError):
        checked(f"colour = 1\n{found[0][1]}", tmp_path, monkeypatch)


def test_the_guide_lists_every_key():
    struct = re.search(r"struct File \{(.*?)\n\}", (SERVER / "config.rs").read_text(), re.S)[1]
    keys = set(re.findall(r"^ {4}(\w+):", struct, re.M))
    table = GUIDE.read_text().split("## Configuration")[1].split("\n## ")[0]
    listed = {key.split(".")[0] for key in re.findall(r"^\| `([\w.]+)` \|", table, re.M)}
    assert listed == keys


def test_addresses_of_the_guide_exist():
    document = json.loads((SERVER / "openapi.json").read_text())
    ends = {path.split("/{model}/")[-1].split("/")[0] for path in document["paths"] if "{model}/" in path}
    text = GUIDE.read_text()
    named = set(re.findall(r"`(?:GET |POST |PUT )?…/([a-z]+)", text)) - {"acknowledge", "mute"}
    assert len(named) > 6
    assert named <= ends
    for path in re.findall(r"(?<![\w/])(/v1/(?!models)\w+|/metrics|/livez|/readyz|/openapi.json)", text):
        assert path in document["paths"] or path == "/livez", path


def test_the_guide_for_controllers_of_roll_outs(yaml):
    found = {document.get("kind"): document for _, text in blocks(GUIDE, "yaml") for document in [yaml.safe_load(text)]}
    (hook,) = found[None]["analysis"]["webhooks"]
    assert re.sub(r"/models/\w+/", "/models/{model}/", "/" + hook["url"].split("/", 3)[3]) == "/v1/models/{model}/decisions"
    (metric,) = found["AnalysisTemplate"]["spec"]["metrics"]
    path = "/" + metric["provider"]["web"]["url"].split("/", 3)[3].replace("/fraud/", "/{model}/")
    document = json.loads((SERVER / "openapi.json").read_text())
    assert "get" in document["paths"][path]
    field = re.fullmatch(r"\{\$\.(\w+)\}", metric["provider"]["web"]["jsonPath"])[1]
    words = document["components"]["schemas"]["Decision"]["properties"][field]["enum"]
    conditions = [re.fullmatch(r'result == "(\w+)"', metric[name])[1] for name in ("successCondition", "failureCondition")]
    assert conditions == ["pass", "fail"]
    assert set(words) - set(conditions) == {"inconclusive"}


def test_metrics_of_the_guide_are_exposed():
    exposed = "\n".join(path.read_text() for path in [SERVER / "exposition.rs", *sorted((SERVER / "exporters").glob("*.rs"))])
    named = set(re.findall(r"`(barograph_[a-z_]+)", GUIDE.read_text()))
    assert len(named) > 15
    for name in named:
        assert f'"{name}"' in exposed or f"{name}" in exposed, name


def test_every_control_names_a_test_that_exists():
    table = SECURITY.read_text().split("## Threat, control, test")[1].split("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][2:]
    assert len(rows) > 20
    ends = "\n".join(path.read_text() for folder in ("e2e", "browser") for path in (ROOT / "tests" / folder).glob("test_*.py"))
    for row in rows:
        cell = row.split(" | ")[-1].strip(" |")
        if cell == "none yet by name":
            continue
        names = re.findall(r"`([^`]+)`", cell)
        assert names, row
        source = None
        for name in names:
            if name.startswith("test_"):
                assert re.search(rf"^def {name}\(", ends, re.M), name
            elif name.endswith(".rs"):
                source = (ROOT / name if name.startswith("rust/") else SERVER / name).read_text()
            else:
                assert re.search(rf"#\[test\]\n(?:\s*#.*\n)*\s*fn {name}\(", source), name
