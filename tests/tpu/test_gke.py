"""The JobSet that is submitted: it has what Kubernetes and GKE require, and carries the command word for word."""

import re

import pytest
import yaml

from tests.tpu.conftest import ROOT
from tests.tpu.test_hosts import WORDS

IMAGE = "us-docker.pkg.dev/some/grm/grm_jax:1"
OPTIONS = ("--name", "judge", "--image", IMAGE, "--bucket", "some-bucket")


def rendered(cloud, *arguments):
    done = cloud.run("gke/submit", *OPTIONS, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    assert cloud.calls == []
    return yaml.safe_load(done.stdout)


def expanded(word):
    """What Kubernetes makes of a word of a command in a container without variables: $$ is $."""
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", word), "a $ that is not doubled"
    return word.replace("$$", "$")


def test_it_has_what_is_required(cloud):
    jobset = rendered(cloud, "--kind", "v6e", "--topology", "4x8", "--", "grm", "judge")
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2" and jobset["kind"] == "JobSet"
    assert jobset["metadata"]["name"] == "judge"
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 20
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert replicated["name"] == "host" and replicated["replicas"] == 1
    job = replicated["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 8  # 32 chips, four a host
    assert job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # a podFailurePolicy needs it
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice", "cloud.google.com/gke-tpu-topology": "4x8",
    }  # fmt: skip
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["image"] == IMAGE and container["command"] == ["grm", "--distributed", "judge"]
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": 4}
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/mnt/grm"}
    assert volume["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"
    assert volume["csi"]["volumeAttributes"]["bucketName"] == "some-bucket"
    assert job["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}


def test_a_command_arrives_word_for_word(cloud):
    words = [word for word in WORDS if not re.search(r"[\x00-\x1f]", word)]
    words += ["@NAME@ & \\1", "yes", "0x10", "$$ $(HOME)"]
    jobset = rendered(cloud, "--", "grm", *words)
    command = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert [expanded(word) for word in command] == ["grm", "--distributed", *words]


def test_control_characters_are_refused(cloud):
    done = cloud.run("gke/submit", *OPTIONS, "--", "grm", "line\nend")
    assert done.returncode == 2 and "control character" in done.stderr and cloud.calls == []


@pytest.mark.parametrize("name", ["true", "null", "yes"])
def test_names_that_look_like_something_else_stay_names(cloud, name):
    jobset = rendered(cloud, "--service-account", name, "--", "grm", "judge")
    assert jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["serviceAccountName"] == name


@pytest.mark.parametrize(
    ("options", "accelerator", "hosts"),
    [
        ((), "tpu-v5-lite-podslice", 4),
        (("--topology", "2x4", "--chips", "8"), "tpu-v5-lite-podslice", 1),
        (("--kind", "v5p", "--topology", "2x2x4"), "tpu-v5p-slice", 4),
        (("--kind", "v6e", "--topology", "8x8"), "tpu-v6e-slice", 16),
    ],
)
def test_hosts_follow_from_the_topology(cloud, options, accelerator, hosts):
    job = rendered(cloud, *options, "--", "grm", "judge")["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["completions"] == hosts
    assert job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == accelerator


def test_kubectl_is_given_what_a_dry_run_prints(cloud):
    jobset = rendered(cloud, "--namespace", "grm", "--", "grm", "judge")
    assert cloud.run("gke/submit", *OPTIONS, "--namespace", "grm", "--", "grm", "judge").returncode == 0
    (record,) = cloud.records
    assert record["argv"] == ["kubectl", "create", "--filename=-", "--namespace=grm"]
    assert yaml.safe_load(record["stdin"]) == jobset


def test_every_placeholder_of_the_template_is_replaced(cloud):
    template = (ROOT / "tpu/gke/jobset.yaml").read_text()
    placeholders = set(re.findall(r"@[A-Z_]+@", template))
    assert len(placeholders) == 10
    done = cloud.run("gke/submit", *OPTIONS, "--dry-run", "--", "grm", "judge")
    assert not re.search(r"@[A-Z_]+@", done.stdout)


def test_the_image_is_pinned_installs_the_extra_that_exists_and_does_not_run_as_root():
    text = (ROOT / "tpu/gke/Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.11\.\d+-slim-\w+$", text, re.MULTILINE)
    assert '".[tpu]"' in text and re.search(r"^USER 1000$", text, re.MULTILINE)
    for source in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / path).exists() for path in source.split())
    allowed = (ROOT / "tpu/gke/Dockerfile.dockerignore").read_text().splitlines()
    assert allowed[0] == "*"
    assert {line[1:] for line in allowed if line.startswith("!")} == {
        path for source in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for path in source.split()
    }
