"""tpu/resume sees a command through to its end, whatever becomes of the slice meanwhile."""

import pytest

NAME = ("--name", "pod", "--type", "v5litepod-16", "--spot", "--zone", "us-west4-a")
COMMAND = ("--", "grm", "train", "sft", "--gin.Sft.dtype='bfloat16'")
GONE = {"error": "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource 'pod' was not found\n", "code": 1}


def steps(cloud):
    """What was done, in order, by the verb that stands for it; looking alone is left out."""
    found = []
    for _, _, _, group, verb, *rest in cloud.calls:
        text = next((word for word in rest if word.startswith("--command=")), "")
        if "_host status" in text or verb == "describe":
            continue
        found.append("setup" if " setup" in text else "start" if "_host start" in text else f"{group} {verb}")
    return found


AGAIN = ["tpu-vm delete", "tpu-vm create", "tpu-vm scp", "setup", "start"]
ANEW = AGAIN[1:]


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED"])
def test_after_a_preemption_the_slice_is_made_anew_and_the_same_command_goes_on(cloud, state):
    cloud.tell(
        ("describe", "READY", state, "CREATING", "READY", "READY"),
        ("--command=grm_jax/tpu/_host status job", "running", "running", "ended 0"),
        ("", 0),
    )  # fmt: skip
    done = cloud.run("resume", *NAME, *COMMAND)
    assert done.returncode == 0, done.stderr
    assert f"pod is {state}: creating it anew" in done.stderr
    records = cloud.records
    made = [record["argv"] for record in records if record["argv"][4] in ("create", "delete")]
    assert made == [
        ["gcloud", "compute", "tpus", "tpu-vm", "delete", "pod", "--quiet", "--zone=us-west4-a"],
        [
            "gcloud", "compute", "tpus", "tpu-vm", "create", "pod", "--accelerator-type=v5litepod-16",
            "--version=v2-alpha-tpuv5-lite", "--spot", "--zone=us-west4-a",
        ],
    ]  # fmt: skip
    starts = [word for record in records for word in record["argv"] if "_host start" in word]
    quoted = "'--gin.Sft.dtype='\\''bfloat16'\\'''"
    assert starts == [f"--command=grm_jax/tpu/_host start job grm --distributed train sft {quoted}"]


def test_the_order_is_delete_create_copy_set_up_start(cloud):
    cloud.tell(
        ("describe", "PREEMPTED", "READY"), ("--command=grm_jax/tpu/_host status job", "ended 0"), ("", 0)
    )  # fmt: skip
    assert cloud.run("resume", *NAME, *COMMAND).returncode == 0
    assert steps(cloud) == AGAIN


def test_a_slice_that_is_not_there_is_created(cloud):
    cloud.tell(("describe", GONE, "READY"), ("--command=grm_jax/tpu/_host status job", "ended 0"), ("", 0))
    done = cloud.run("resume", *NAME, *COMMAND)
    assert done.returncode == 0, done.stderr
    assert steps(cloud) == ANEW


def test_a_suspended_request_is_deleted_and_asked_for_again(cloud):
    cloud.tell(
        ("describe", "SUSPENDING", "SUSPENDED", "WAITING_FOR_RESOURCES", "ACTIVE"),
        ("--command=grm_jax/tpu/_host status job", "ended 0"),
        ("", 0),
    )
    done = cloud.run("resume", *NAME, "--queued", *COMMAND)
    assert done.returncode == 0, done.stderr
    assert steps(cloud) == [
        "queued-resources delete", "queued-resources create", "tpu-vm scp", "setup", "start",
    ]  # fmt: skip


@pytest.mark.parametrize(("status", "expected"), [(127, ANEW[1:]), ("absent", ANEW[1:])])
def test_a_slice_without_the_job_is_set_up_and_the_job_started(cloud, status, expected):
    cloud.tell(("describe", "READY"), ("--command=grm_jax/tpu/_host status job", status, "running", "ended 0"), ("", 0))
    assert cloud.run("resume", *NAME, *COMMAND).returncode == 0
    assert steps(cloud) == expected


def test_a_command_that_was_told_to_stop_is_started_again_if_the_slice_stays(cloud):
    cloud.tell(
        ("describe", "READY"),
        ("--command=grm_jax/tpu/_host status job", "running", "ended 143", "ended 143", "running", "ended 0"),
        ("", 0),
    )
    assert cloud.run("resume", *NAME, *COMMAND).returncode == 0
    assert steps(cloud) == ["start"]


def test_a_lost_process_is_started_again_three_times_at_most(cloud):
    status = "--command=grm_jax/tpu/_host status job"
    cloud.tell(("describe", "READY"), (status, "ended 4", "running", "ended 134", "ended 0"), ("", 0))
    assert cloud.run("resume", *NAME, *COMMAND).returncode == 0
    assert steps(cloud) == ["start"] * 2
    cloud.tell(("describe", "READY"), (status, "ended 4"), ("", 0))
    done = cloud.run("resume", *NAME, *COMMAND)
    assert done.returncode == 4 and "processes were lost 4 times" in done.stderr


def test_a_command_that_was_told_to_stop_waits_for_the_slice_to_go(cloud):
    cloud.tell(
        ("describe", "READY", "PREEMPTED", "READY"),
        ("--command=grm_jax/tpu/_host status job", "ended 143", "ended 0"),
        ("", 0),
    )
    assert cloud.run("resume", *NAME, *COMMAND).returncode == 0
    assert steps(cloud) == AGAIN


def test_a_host_that_cannot_be_asked_is_asked_again(cloud):
    cloud.tell(("describe", "READY"), ("--command=grm_jax/tpu/_host status job", 255, 1, "ended 0"), ("", 0))
    done = cloud.run("resume", *NAME, *COMMAND)
    assert done.returncode == 0
    assert "cannot be asked (exit code 255)" in done.stderr and steps(cloud) == []


@pytest.mark.parametrize("code", [1, 2, 3, 137])
def test_a_command_that_fails_is_not_repeated(cloud, code):
    cloud.tell(("describe", "READY"), ("--command=grm_jax/tpu/_host status job", f"ended {code}"), ("", 0))
    done = cloud.run("resume", *NAME, *COMMAND)
    assert done.returncode == code and steps(cloud) == []


def test_a_slice_that_cannot_be_created_ends_it_with_gclouds_code(cloud):
    cloud.tell(("describe", "PREEMPTED"), ("create", {"error": "RESOURCE_EXHAUSTED\n", "code": 9}), ("", 0))
    done = cloud.run("resume", *NAME, *COMMAND)
    assert done.returncode == 9 and "RESOURCE_EXHAUSTED" in done.stderr
    assert steps(cloud) == ["tpu-vm delete", "tpu-vm create"]


def test_a_dry_run_prints_one_round_and_runs_nothing(cloud):
    done = cloud.run("resume", *NAME, "--bucket", "some-bucket", "--dry-run", *COMMAND)
    assert done.returncode == 0 and cloud.calls == []
    cloud.tell(("", 0))
    assert cloud.shell("bash", "-c", done.stdout).returncode == 0
    assert steps(cloud) == AGAIN
