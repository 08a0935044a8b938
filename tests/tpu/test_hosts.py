"""What arrives on the hosts: the checkout, the package, the bucket; a command word for word; its output and exit code."""

import json
import shutil
import subprocess
import sys
import time

import pytest

from tests.tpu.conftest import ROOT
from tests.tpu.test_commands import UNPACK

WORDS = [
    "--gin.Spct.split='test'",
    '--gin.Spct.ks=(1, 8, "32")',
    "two  spaces and a \ttab",
    "$HOME `id` $(id) \\ \" ' ! * ? ~ # ; & | < > {a,b} [c]",
    "-- --name",
    "line\nend",
    "",
    "naïve ☃",
]


@pytest.fixture
def hosts(cloud):
    """Two hosts with the scripts, and a `grm` that writes its words down; its first word may tell it how to end."""
    homes = cloud.hosts(2)
    for home in homes:
        for folder in ("tpu", "scripts"):
            shutil.copytree(ROOT / folder, home / "grm_jax" / folder)
        grm = home / "grm_jax/.venv/bin/grm"
        grm.parent.mkdir(parents=True)
        grm.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys, time\n"
            "print('in', os.getcwd())\n"
            "open(os.path.expanduser('~/words.json'), 'w').write(json.dumps(sys.argv[1:]))\n"
            "if 'wait' in sys.argv:\n"
            "    while not os.path.exists(os.path.expanduser('~/go')): time.sleep(0.01)\n"
            "print('the end', file=sys.stderr)\n"
            "sys.exit(3 if 'three' in sys.argv else 0)\n"
        )
        grm.chmod(0o755)
    yield homes
    for home in homes:
        (home / "go").touch()  # no job outlives a test that failed


def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def test_a_command_arrives_word_for_word_on_every_host(cloud, hosts):
    done = cloud.run("run", "--name", "pod", "--", "grm", *WORDS)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: all((home / "grm_jobs/job/exit_code").exists() for home in hosts))
    for home in hosts:
        assert json.loads((home / "words.json").read_text()) == ["--distributed", *WORDS]
        assert (home / "grm_jobs/job/exit_code").read_text() == "0\n"
        assert (home / "grm_jobs/job/log").read_text() == f"in {home / 'grm_jax'}\nthe end\n"


def test_resume_hands_the_same_words_on_and_ends_with_the_code_of_the_command(cloud, hosts):
    cloud.tell(("describe", "READY"), (f"--command={UNPACK}", 0), ("scp", 0))
    done = cloud.run("resume", "--name", "pod", "--type", "v6e-8", "--", "grm", "three", *WORDS)
    assert done.returncode == 3, done.stderr
    assert json.loads((hosts[1] / "words.json").read_text()) == ["--distributed", "three", *WORDS]


def test_logs_follow_a_job_to_its_end_and_end_with_its_code(cloud, hosts):
    assert cloud.run("run", "--name", "pod", "--job", "slow", "--", "grm", "wait", "three").returncode == 0
    again = cloud.run("run", "--name", "pod", "--job", "slow", "--", "grm", "wait")
    assert again.returncode == 2 and "the job slow is still running" in again.stderr
    following = subprocess.Popen(
        [ROOT / "tpu/logs", "--name", "pod", "--job", "slow", "--worker", "1"], env=cloud.environment, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert following.stdout.readline() == f"in {hosts[1] / 'grm_jax'}\n"
    assert following.poll() is None
    (hosts[1] / "go").touch()
    assert following.communicate(timeout=30)[0] == "the end\n"
    assert following.returncode == 3
    (hosts[0] / "go").touch()
    wait_for(lambda: (hosts[0] / "grm_jobs/slow/exit_code").exists())
    # Run again, the log goes on.
    assert cloud.run("run", "--name", "pod", "--job", "slow", "--", "grm", "wait").returncode == 0
    wait_for(lambda: (hosts[1] / "grm_jobs/slow/exit_code").exists())
    assert (hosts[1] / "grm_jobs/slow/log").read_text().count("the end") == 2


def test_logs_of_a_job_that_is_not_there(cloud, hosts):
    done = cloud.run("logs", "--name", "pod", "--job", "none")
    assert done.returncode == 2 and "there is no job none on this host" in done.stderr


def test_copy_brings_results(cloud, hosts, tmp_path):
    cloud.run("run", "--name", "pod", "--", "grm", "x")
    wait_for(lambda: (hosts[0] / "grm_jobs/job/exit_code").exists())
    assert cloud.run("copy", "--name", "pod", ":grm_jobs/job", tmp_path / "results").returncode == 0
    assert (tmp_path / "results/exit_code").read_text() == "0\n"


STUB = """#!/bin/bash
echo "${0##*/} $*" >>"$HOME/called"
case "$*" in
  "-m venv "*)
    for folder; do :; done
    mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" ;;
  "-c "*sys.prefix*) echo "$HOME/grm_jax/.venv" ;;
  "-m uv python find 3.11") echo "$HOME/bin/python_of_uv" ;;
esac
"""


def put(home, name, text=STUB):
    path = home / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="the checkout is no git repository: nothing says what is copied"
)
@pytest.mark.parametrize("python", ["python3.11", "python_of_uv"])
def test_setup_copies_the_checkout_installs_the_package_and_mounts_the_bucket(cloud, python):
    homes = cloud.hosts(2)
    for home in homes:
        old = "#!/bin/bash\nexit 1\n"
        for name in ("python3.11", "python3.12", "python3.13"):
            put(home, name, STUB if name == python else old)
        # The system's python3 is too old for us, but has pip.
        put(home, "python3", STUB.replace('case "$*"', '[[ $1 != -c ]] || exit 1\ncase "$*"'))
        put(home, "python_of_uv")
        put(home, "gcsfuse")
        put(home, "sudo")
        put(home, "mountpoint", "#!/bin/bash\nexit 1\n")
    done = cloud.run("setup", "--name", "pod", "--bucket", "some-bucket")
    assert done.returncode == 0, done.stderr
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout.split()
    for home in homes:
        checkout = home / "grm_jax"
        assert all((checkout / path).is_file() for path in tracked)
        assert not (checkout / ".git").exists()
        called = (home / "called").read_text().splitlines()
        assert f"{python} -m venv --clear {checkout}/.venv" in called
        assert f"python -m pip install --quiet --disable-pip-version-check --editable {checkout}[tpu]" in called
        assert ("python3 -m uv python install --quiet 3.11" in called) == (python == "python_of_uv")
        assert called[-1] == "gcsfuse --implicit-dirs some-bucket /mnt/grm"
        (home / "called").write_text("")
    # Once more: the files are copied again, nothing is installed that is there.
    assert cloud.run("setup", "--name", "pod").returncode == 0
    assert "install" not in (homes[0] / "called").read_text()
