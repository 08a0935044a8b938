"""Which command each script makes of its options: exactly these words, and with --dry-run none but in print."""

import shutil
import subprocess

import pytest

from tests.tpu.conftest import ROOT

TPU = ["gcloud", "compute", "tpus", "tpu-vm"]
QUEUED = ["gcloud", "compute", "tpus", "queued-resources"]
WHERE = ["--zone=us-west4-a", "--project=some-project"]
ARCHIVE = str(ROOT / "build/tpu/grm_jax.tar.gz")
UNPACK = "bash -c 'mkdir -p grm_jax && tar -xzf grm_jax.tar.gz -C grm_jax && exec grm_jax/tpu/_host \"$@\"' _host setup"

# script and options -> the calls they make
COMMANDS = {
    "create --name pod --type v5litepod-16": [
        [*TPU, "create", "pod", "--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"]
    ],
    "create --name=pod --type=v6e-64 --spot --zone us-west4-a --project some-project": [
        [*TPU, "create", "pod", "--accelerator-type=v6e-64", "--version=v2-alpha-tpuv6e", "--spot", *WHERE]
    ],
    "create --name pod --type v5p-32 --runtime-version other": [
        [*TPU, "create", "pod", "--accelerator-type=v5p-32", "--version=other"]
    ],
    "create --name pod --type v4-32 --queued --spot --valid-until-duration 6h --zone=us-west4-a --project=some-project": [
        [
            *QUEUED, "create", "pod", "--node-id=pod", "--accelerator-type=v4-32", "--runtime-version=tpu-ubuntu2204-base",
            "--spot", "--valid-until-duration=6h", *WHERE,
        ],
        [*QUEUED, "describe", "pod", "--format=value(state.state)", *WHERE],
    ],
    "setup --name pod": [
        [*TPU, "scp", ARCHIVE, "pod:grm_jax.tar.gz", "--worker=all"],
        [*TPU, "ssh", "pod", "--worker=all", f"--command={UNPACK}"],
    ],
    "setup --name pod --bucket some-bucket --zone us-west4-a --project some-project": [
        [*TPU, "scp", ARCHIVE, "pod:grm_jax.tar.gz", "--worker=all", *WHERE],
        [*TPU, "ssh", "pod", "--worker=all", f"--command={UNPACK} some-bucket /mnt/grm", *WHERE],
    ],
    "run --name pod -- grm judge --k 32": [
        [*TPU, "ssh", "pod", "--worker=all", "--command=grm_jax/tpu/_host start job grm --distributed judge --k 32"]
    ],
    "run --name pod --job two -- grm --distributed info x": [
        [*TPU, "ssh", "pod", "--worker=all", "--command=grm_jax/tpu/_host start two grm --distributed info x"]
    ],
    "run --name pod -- python x.py": [
        [*TPU, "ssh", "pod", "--worker=all", "--command=grm_jax/tpu/_host start job python x.py"]
    ],
    "logs --name pod": [[*TPU, "ssh", "pod", "--worker=0", "--command=grm_jax/tpu/_host follow job"]],
    "logs --name pod --job two --worker 3 --zone us-west4-a --project some-project": [
        [*TPU, "ssh", "pod", "--worker=3", "--command=grm_jax/tpu/_host follow two", *WHERE]
    ],
    "copy --name pod :/mnt/grm/run results": [[*TPU, "scp", "pod:/mnt/grm/run", "results", "--recurse", "--worker=0"]],
    "copy --name pod items.jsonl :items.jsonl": [
        [*TPU, "scp", "items.jsonl", "pod:items.jsonl", "--recurse", "--worker=all"]
    ],
    "delete --name pod --zone us-west4-a --project some-project": [[*TPU, "delete", "pod", *WHERE]],
    "delete --name pod --queued --yes": [[*QUEUED, "delete", "pod", "--force", "--quiet"]],
    "gke/logs --name set": [
        [
            "kubectl", "logs", "--follow", "--tail=-1",
            "--selector=jobset.sigs.k8s.io/jobset-name=set,batch.kubernetes.io/job-completion-index=0",
        ]
    ],
    "gke/logs --name set --worker all --namespace grm": [
        [
            "kubectl", "logs", "--follow", "--tail=-1", "--selector=jobset.sigs.k8s.io/jobset-name=set", "--prefix",
            "--max-log-requests=256", "--namespace=grm",
        ]
    ],
    "gke/delete --name set": [["kubectl", "delete", "jobset", "set"]],
}  # fmt: skip
ANSWERS = ("describe", "ACTIVE"), ("", 0)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_are_these_word_for_word(cloud, line):
    cloud.tell(*ANSWERS)
    done = cloud.run(*line.split())
    assert done.returncode == 0, done.stderr
    assert cloud.calls == COMMANDS[line]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_dry_run_prints_what_a_shell_would_run_to_the_same_end_and_runs_nothing(cloud, line):
    cloud.tell(*ANSWERS)
    script, *arguments = line.split()
    done = cloud.run(script, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    assert cloud.calls == []
    assert cloud.shell("bash", "-c", done.stdout).returncode == 0
    assert cloud.calls == COMMANDS[line]


def test_a_queued_slice_is_waited_for(cloud):
    cloud.tell(("describe", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"))
    done = cloud.run("create", "--name", "pod", "--type", "v6e-64", "--queued")
    assert done.returncode == 0, done.stderr
    assert "WAITING_FOR_RESOURCES" in done.stderr and "PROVISIONING" in done.stderr
    assert [call[4] for call in cloud.calls] == ["create", "describe", "describe", "describe"]


def test_a_queued_slice_that_never_comes_is_not_waited_for(cloud):
    cloud.tell(("describe", "WAITING_FOR_RESOURCES", "FAILED"))
    done = cloud.run("create", "--name", "pod", "--type", "v6e-64", "--queued")
    assert done.returncode == 2
    assert "the request pod is FAILED" in done.stderr.splitlines()[-1]


@pytest.mark.slow  # gcloud takes a second to start
@pytest.mark.skipif(
    not shutil.which("gcloud"), reason="Google's gcloud is not installed: its own parser cannot be asked"
)
@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("gke")])
def test_gcloud_itself_knows_every_option(line, tmp_path):
    import json
    import os
    import shlex

    environment = os.environ | {"CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1"}
    for call in COMMANDS[line]:
        asked = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={shlex.join(call)}"]
        (found,) = json.loads(subprocess.run(asked, env=environment, capture_output=True, check=True).stdout)
        assert found["success"], (call, found["error_message"])
