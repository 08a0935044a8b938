"""A mistake ends with exit code 2 and one line, before anything is called; a failure of gcloud or kubectl keeps its code."""

import pytest

GKE = "gke/submit --name set --image repo/grm:1 --bucket some-bucket"
MISTAKES = {
    "create --type v5litepod-16": "--name is missing",
    "create --name pod": "--type is missing",
    "create --name pod --type h100-8": "--type h100-8: is not like v5litepod-16",
    "create --name pod --type v6e-8x": "--type v6e-8x: is not like v5litepod-16",
    "create --name pod --type": "--type needs a value",
    "create --name pod --type= --spot": "--type needs a value",
    "create --name pod --type --spot": "--type needs a value",
    "create --name pod --type v6e-8 --spot=yes": "--spot=yes: no such option",
    "create --name pod --type v6e-8 --valid-until-duration 6h": "--valid-until-duration: only with --queued",
    "create --name pod --type v6e-8 --queued --valid-until-duration soon": "--valid-until-duration soon: is not like 6h",
    "create --name pod --type v6e-8 --machine big": "--machine: no such option",
    "create --name pod --type v6e-8 -s": "-s: no such option",
    "create --name pod --type v6e-8 spot": "spot: not expected",
    "create --name $(reboot) --type v6e-8": "--name $(reboot): is not like judge-pod",
    "setup --name pod --mount /mnt/x": "--mount: only with --bucket",
    "setup --name pod --bucket gs://some-bucket": "--bucket gs://some-bucket: is not like my-bucket",
    "setup --name pod --bucket some-bucket --mount here": "--mount here: is not like /mnt/grm",
    "run --name pod": "no command; give it after --",
    "run -- grm info x": "--name is missing",
    "run --name pod --job ../x -- grm info x": "--job ../x: is not like judge_1",
    "logs --name pod --worker two": "--worker two: is not like 0 or all",
    "copy --name pod :run": "give two paths",
    "copy --name pod :run :there": "one of the two paths",
    "copy --name pod run there": "one of the two paths",
    "copy --name pod --worker all :run there": "--worker all: files come from one host",
    "delete": "--name is missing",
    "resume --name pod -- grm info x": "--type is missing",
    "resume --name pod --type v6e-8": "no command; give it after --",
    "gke/submit --name set --image repo/grm:1 -- grm info x": "--bucket is missing",
    f"{GKE}": "no command; give it after --",
    f"{GKE} --kind h100 -- grm info x": "--kind h100: is not v5e, v5p or v6e",
    f"{GKE} --topology 4by4 -- grm info x": "--topology 4by4: is not like 4x4",
    f"{GKE} --topology 2x3 -- grm info x": "--topology 2x3: 4 chips a host do not make it",
    f"{GKE} --topology 1x1 -- grm info x": "--topology 1x1: 4 chips a host do not make it",
    f"{GKE} --restarts 007 -- grm info x": "--restarts 007: is not like 20",
    "gke/submit --name Set --image repo/grm:1 --bucket some-bucket -- grm": "--name Set: is not like judge-pod",
    "gke/logs --name set --worker first": "--worker first: is not like 0 or all",
    "gke/delete": "--name is missing",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_refused_in_one_line_and_nothing_is_called(cloud, line):
    done = cloud.run(*line.split(" "))
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert MISTAKES[line] in done.stderr
    assert cloud.calls == []


@pytest.mark.parametrize(
    "script", ["create", "delete", "setup", "run", "logs", "copy", "resume", "gke/submit", "gke/logs", "gke/delete"]
)
def test_help_shows_examples_and_calls_nothing(cloud, script):
    done = cloud.run(script, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: tpu/{script} ")
    assert f"\n  tpu/{script} --name" in done.stdout and "--dry-run" in done.stdout
    assert cloud.calls == []


@pytest.mark.parametrize(
    "line",
    [
        "create --name pod --type v6e-8",
        "create --name pod --type v6e-8 --queued",
        "setup --name pod",
        "run --name pod -- grm info x",
        "logs --name pod",
        "copy --name pod :run there",
        "delete --name pod --yes",
        "resume --name pod --type v6e-8 -- grm info x",
        f"{GKE} -- grm info x",
        "gke/logs --name set",
        "gke/delete --name set",
    ],
)
def test_a_failure_keeps_its_code_and_its_words_and_ends_the_script(cloud, line):
    cloud.tell(("", {"error": "ERROR: (gcloud) PERMISSION_DENIED: no\n", "code": 7}))
    done = cloud.run(*line.split())
    assert done.returncode == 7
    assert "PERMISSION_DENIED: no" in done.stderr
    assert len(cloud.calls) == 1
