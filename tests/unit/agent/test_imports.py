"""What a command imports, by what it does not: times depend on the machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from crds.keys import model_key
from tests.unit.agent.api_server import FakeServer, write_kubeconfig
from tests.unit.agent.commands import TREE, environment
from tests.unit.agent.servers import Buckets, WebFiles, serving

if TYPE_CHECKING:
    from pathlib import Path

# A process of each test imports much.
pytestmark = pytest.mark.timeout(120)

# Each takes a tenth of a second, or megabytes. azure, grpc and paramiko: smart_open imports them.
NEVER = {"asyncio", "azure", "chardet", "charset_normalizer", "grpc", "paramiko", "rich"}
NEVER |= {"smart_open.s3"}
# What only an archive needs.
NEVER |= {"agent.jobs.archive.unpack"}
# The types of all kinds of Kubernetes.
NEVER |= {"kubernetes.client.api.core_v1_api", "kubernetes.client.models.v1_pod"}
LAZY = {"awscrt", "boto3", "botocore", "cryptography", "google.auth", "prometheus_client"}
# What a model on the disk and the display of a pull can do without.
TYPES = {"pydantic", "structlog", "typing_extensions"}
CLUSTER = {"kubernetes", "oauthlib", "yaml"}
# What only a verification, and only the agent of a cluster needs.
OTHERS = {"agent.commands.verify", "agent.credentials.resolver"}

# A command ends by os._exit, unless it cannot start. A hidden module is None.
REPORTING = """
import os, sys

def report(code):
    there = {name for name, module in sys.modules.items() if module is not None}
    print("\\nimported:", *sorted(there), flush=True)
    end(code)

end, os._exit = os._exit, report
from agent.main import main
report(main(sys.argv[1:]))
"""


def started(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", REPORTING, *map(str, arguments)],
        cwd=TREE,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], code: int = 0) -> set[str]:
    """The modules that a command has imported at its end."""
    out, err = process.communicate(timeout=100)
    assert process.returncode == code, err
    assert "Warning" not in err
    *_, names = out.splitlines()
    found = set(names.removeprefix("imported: ").split())
    assert "agent.main" in found
    return found


def test_a_pull_by_http_needs_no_sdk(tmp_path: Path) -> None:
    with serving(WebFiles({"/model.bin": b"model"})) as server:
        found = ended(started("pull", f"{server.url}/model.bin", tmp_path / "m"))
    assert (tmp_path / "m" / "model.bin").read_bytes() == b"model"
    assert found & (NEVER | LAZY | CLUSTER | OTHERS | TYPES) == set()


def test_a_pull_by_s3_needs_no_other_sdk(tmp_path: Path) -> None:
    with serving(Buckets({"bucket": {"m/model.bin": b"model"}})) as server:
        found = ended(
            started(
                "pull",
                "s3://bucket/m",
                tmp_path / "m",
                AWS_ENDPOINT_URL=server.url,
                AWS_ACCESS_KEY_ID="key",
                AWS_SECRET_ACCESS_KEY="secret",
                AWS_DEFAULT_REGION="eu-test-1",
            )
        )
    assert (tmp_path / "m" / "model.bin").read_bytes() == b"model"
    assert found & (NEVER | LAZY | CLUSTER | TYPES) == {"awscrt", "boto3", "botocore"}


def test_a_file_of_models_needs_no_sdk(tmp_path: Path) -> None:
    models, root = tmp_path / "models.yaml", tmp_path / "root"
    with serving(WebFiles({"/model.bin": b"model"})) as server:
        uri = f"{server.url}/model.bin"
        models.write_text(f"models: [{{uri: '{uri}'}}]")
        found = ended(started("run", "--models", models, "--root", root, "--once"))
    assert (root / "models" / model_key(uri) / "model.bin").read_bytes() == b"model"
    assert found & (NEVER | LAZY | CLUSTER) == {"yaml"}


def test_an_agent_of_a_cluster_begins_without_sources(tmp_path: Path) -> None:
    with serving(FakeServer()) as server:
        config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        arguments = ["--node-name", "n", "--root", str(tmp_path / "root"), "--kubeconfig", config]
        process = started("run", *arguments)
        assert process.stderr is not None
        assert "Agent started" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        found = ended(process)
    # The client of Kubernetes imports them for the logins of kubeconfigs.
    assert found & (NEVER | LAZY) == {"cryptography", "google.auth"}
    assert (
        found & {"smart_open", "agent.peers.server", "agent.sources.transport", "crds.cache"}
        == set()
    )


def test_in_a_pod_it_has_no_logins_of_kubeconfigs(tmp_path: Path) -> None:
    """Nor where it looks for the cluster of its pod, and there is none."""
    arguments = ["--node-name", "n", "--root", tmp_path / "root"]
    found = ended(started("run", *arguments, KUBERNETES_SERVICE_HOST=""), code=2)
    assert "kubernetes" in found
    assert found & (NEVER | LAZY) == set()


def test_hidden_modules_come_back() -> None:
    """smart_open as a whole can still be imported, and a module that was there is not hidden."""
    code = (
        "import sys, json\n"
        "from agent.sources.streams import hdfs, http\n"
        "assert 'smart_open.s3' not in sys.modules\n"
        "import smart_open.s3\n"
        "from agent.structs.hidden_modules import hidden\n"
        "with hidden('json', 'rich'):\n"
        "    import json\n"
        "    try:\n"
        "        import rich\n"
        "    except ImportError:\n"
        "        print('hidden')\n"
        "import rich\n"
    )
    assert _printed(code) == "hidden\n"


def test_a_stand_in_gives_the_module_when_it_is_used() -> None:
    """And only what was imported meanwhile has it."""
    code = (
        "import sys\n"
        "from agent.structs.hidden_modules import stand_in\n"
        "with stand_in('asyncio'):\n"
        "    import asyncio as first\n"
        "    import asyncio as second\n"
        "    assert first is second\n"
        "assert 'asyncio' not in sys.modules\n"
        "print(first.run.__module__)\n"
        "import asyncio\n"
        "assert asyncio is not first and asyncio.run is first.run\n"
        "with stand_in('asyncio'):\n"
        "    import asyncio as there\n"
        "assert there is asyncio is sys.modules['asyncio']\n"
        "with stand_in('colorsys'):\n"
        "    from colorsys import rgb_to_hsv\n"
        "import colorsys\n"
        "assert colorsys.rgb_to_hsv is rgb_to_hsv\n"
    )
    assert _printed(code) == "asyncio.runners\n"


def _printed(code: str) -> str:
    """What a new process prints that runs this code, without an error."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout
