"""The commands of tpu/ that the documents show are accepted."""

import shlex

import pytest

from tests.test_docs import DOCUMENTS, blocks

SHOWN = sorted(
    {
        line.strip()
        for document in DOCUMENTS
        for line in "".join(blocks(document, "bash")).replace("\\\n", " ").splitlines()
        if line.startswith("tpu/")
    }
)


def test_there_is_one_of_every_script():
    scripts = {line.split()[0].removeprefix("tpu/") for line in SHOWN}
    assert scripts == {
        "create", "setup", "run", "logs", "copy", "delete", "resume", "gke/submit", "gke/logs", "gke/delete",
    }  # fmt: skip


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_shown_is_accepted(cloud, line):
    script, *arguments = shlex.split(line.replace("BUCKET", "bucket"))
    done = cloud.run(script.removeprefix("tpu/"), "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    assert cloud.calls == []
