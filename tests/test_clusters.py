"""The examples for clusters: the scripts run with launchers that are stand-ins, and JAX finds in them what it needs.

No scheduler and no cloud is here. What is checked is what a stand-in can: the syntax, the arguments, and that the
variables (or the metadata) that the real launcher sets give JAX's own detection the processes that the example means.
"""

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from jax._src import clusters
from jax._src.clusters import cloud_tpu_cluster

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = ("slurm.sh", "slurm_array.sh", "tpu_vm.sh", "xpk.sh")

RECORD = """#!/bin/bash
printf '%s\\0' "$(basename "$0")" "$@" >> "$RECORD"
printf '\\n' >> "$RECORD"
"""

# What srun does: one process a task, each with its number; the last line of the environment is what JAX reads.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NODELIST="node[07-08]" SLURM_STEP_NUM_NODES=2 SLURM_NTASKS=8
for task in 0 5; do
    SLURM_PROCID=$task SLURM_LOCALID=$((task % 4)) "$@"
done
"""

TELL = """#!/bin/bash
IFS=+  # between arguments, so that one with a blank in it is seen to be one
echo "$*|$SLURM_JOB_ID|$SLURM_STEP_NODELIST|$SLURM_NTASKS|$SLURM_PROCID|$SLURM_LOCALID"
"""
TOLD = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")

INITIALIZE = f"""#!{sys.executable}
import os, sys
os.environ["JAX_PLATFORMS"] = "cpu"
import jax
jax.distributed.initialize()
print(jax.process_index(), jax.process_count(), jax.device_count(), *sys.argv[1:], flush=True)
"""


@pytest.fixture
def bin(tmp_path, monkeypatch):
    """A folder of stand-ins, first on PATH; returns a function that adds one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)

    def add(name, text):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return add


def run(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", str(EXAMPLES / script), *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_are_valid_and_say_what_is_missing(script):
    assert subprocess.run(["bash", "-n", EXAMPLES / script], check=False).returncode == 0
    bare = run(script)
    assert bare.returncode != 0
    assert f"examples/{script}" in bare.stderr or "a file with one plan a line" in bare.stderr
    assert os.access(EXAMPLES / script, os.X_OK)


def test_every_example_is_named_in_the_page():
    page = (EXAMPLES.parent / "docs/clusters.md").read_text(encoding="utf-8")
    assert {file.name for file in EXAMPLES.iterdir()} == {*SCRIPTS, "gke.yaml"}
    assert all(f"examples/{file.name}" in page for file in EXAMPLES.iterdir())


def test_jax_finds_the_processes_of_the_slurm_job(bin, monkeypatch):
    bin("srun", SRUN)
    bin("jaxdyn", TELL)
    done = run("slurm.sh", "my plan.yaml", SLURM_JOB_ID="4242")
    assert done.returncode == 0, done.stderr
    found = []
    for line in done.stdout.splitlines():
        command, *values = line.split("|")
        assert command == "sweep+my plan.yaml"
        for name, value in zip(TOLD, values, strict=True):
            monkeypatch.setenv(name, value)
        found.append(detected(monkeypatch, tpu=False))
    port = 4242 % 4096 + 61440
    assert found == [(f"node07:{port}", 8, 0, [0]), (f"node07:{port}", 8, 5, [1])]


def test_processes_of_a_slurm_job_meet(bin):
    """Two real processes on this host, through jax.distributed.initialize() without an argument."""
    loop = 'for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=0 "$@" & done; wait'
    head = "while [[ $1 == --* ]]; do shift; done; export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2"
    bin("srun", f"#!/bin/bash\n{head}\n{loop}\n")
    bin("jaxdyn", INITIALIZE)
    done = run("slurm.sh", "plan.yaml", SLURM_JOB_ID=str(os.getpid()))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 2 2 sweep plan.yaml", "1 2 2 sweep plan.yaml"]


def test_the_directives_of_slurm_agree_with_each_other():
    for script in ("slurm.sh", "slurm_array.sh"):
        text = (EXAMPLES / script).read_text(encoding="utf-8")
        said = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE))
        assert said["ntasks-per-node"] == said["gpus-per-node"], "a process a GPU"
        assert "requeue" in said
        # sbatch ends its directives at the first command
        assert text.index("set -e") > text.rindex("#SBATCH")


def test_a_task_of_the_array_takes_its_own_plan(bin, tmp_path):
    bin("srun", '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    bin("jaxdyn", RECORD)
    plans = tmp_path / "plans"
    plans.write_text("one.yaml\ntwo of two.yaml\n")
    assert run("slurm_array.sh", plans, SLURM_ARRAY_TASK_ID="2").returncode == 0
    assert recorded(tmp_path) == [["jaxdyn", "sweep", "two of two.yaml"]]
    beyond = run("slurm_array.sh", plans, SLURM_ARRAY_TASK_ID="3")
    assert beyond.returncode == 2
    assert "has no line 3; the array goes from 1 to 2" in beyond.stderr
    alone = run("slurm_array.sh", plans)
    assert alone.returncode != 0
    assert "not a task of an array" in alone.stderr


@pytest.mark.parametrize(("script", "program"), [("tpu_vm.sh", "gcloud"), ("xpk.sh", "xpk")])
def test_the_command_sent_to_the_hosts_is_one_sweep(bin, tmp_path, script, program):
    bin(program, RECORD)
    bin("jaxdyn", RECORD)
    assert run(script, "name", "there", "my plan.yaml").returncode == 0
    ((said, *arguments),) = recorded(tmp_path)
    assert said == program
    options = dict(one.removeprefix("--").split("=", 1) for one in arguments if one.startswith("--"))
    plain = [one for one in arguments if not one.startswith("--")]
    if program == "gcloud":
        assert plain == ["alpha", "compute", "tpus", "tpu-vm", "ssh", "name"]
        assert (options["zone"], options["worker"]) == ("there", "all")
    else:
        assert plain == ["workload", "create"]
        assert (options["cluster"], options["docker-image"], options["tpu-type"]) == ("name", "there", "v5p-128")
    (tmp_path / "record").unlink()
    subprocess.run(["bash", "-c", options["command"]], check=True)
    assert recorded(tmp_path) == [["jaxdyn", "sweep", "my plan.yaml"]]


@pytest.fixture
def metadata(monkeypatch):
    """A metadata server as a TPU's host sees it; fill the dictionary with what it knows."""
    answers: dict[str, str] = {}

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self):
            key = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
            self.send_response(200 if key in answers else 404)
            self.end_headers()
            self.wfile.write(answers.get(key, "").encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
        monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
        monkeypatch.setattr("time.sleep", lambda _: None)  # JAX asks six times for what is not there
        yield answers
        server.shutdown()


def test_jax_finds_the_processes_of_a_tpu_vm(monkeypatch, metadata):
    metadata["agent-worker-number"] = "3"
    metadata["worker-network-endpoints"] = "a:1:10.0.0.2,b:2:10.0.0.3,c:3:10.0.0.4,d:4:10.0.0.5"
    metadata["tpu-env"] = "ACCELERATOR_TYPE: 'v5litepod-16'"
    assert detected(monkeypatch) == ("10.0.0.2:8482", 4, 3, None)


@pytest.mark.usefixtures("metadata")
def test_jax_finds_the_processes_of_the_gke_job(monkeypatch):
    _, job = manifest()
    name, spec = job["metadata"]["name"], job["spec"]
    hosts = [f"{name}-{index}.{spec['template']['spec']['subdomain']}" for index in range(spec["completions"])]
    monkeypatch.setenv("TPU_WORKER_ID", "5")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", ",".join(hosts))
    monkeypatch.delenv("TPU_PROCESS_ADDRESSES", raising=False)
    assert detected(monkeypatch) == ("jaxdyn-sweep-0.jaxdyn:8482", 16, 5, None)


def test_the_manifest_asks_for_a_whole_slice():
    service, job = manifest()
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed"
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"]["google.com/tpu"] == chips
    x, y, z = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert spec["completions"] == spec["parallelism"] == x * y * z // chips
    assert pod["restartPolicy"] == "Never"
    assert container["command"][:2] == ["jaxdyn", "sweep"]
    mounted = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= mounted
    assert container["command"][2].startswith(container["volumeMounts"][0]["mountPath"])


def test_jax_finds_the_processes_of_open_mpi(monkeypatch):
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911")
    for name, value in (("SIZE", "6"), ("RANK", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    address, *rest = detected(monkeypatch, tpu=False)
    assert str(address).startswith("10.96.0.1:")
    assert rest == [6, 4, [1]]


def detected(monkeypatch, *, tpu=True):
    """What JAX would start its processes with: coordinator, their number, this one's, its local devices."""
    from jax._src.clusters import cluster

    for module in (cluster, cloud_tpu_cluster):
        monkeypatch.setattr(module, "running_in_cloud_tpu_vm", tpu)
    monkeypatch.setattr(cloud_tpu_cluster.socket, "gethostbyname", lambda name: name)
    return clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 1)


def manifest():
    return list(yaml.safe_load_all((EXAMPLES / "gke.yaml").read_text(encoding="utf-8")))


def recorded(folder):
    lines = (folder / "record").read_text().splitlines()
    return [line.rstrip("\0").split("\0") for line in lines]
