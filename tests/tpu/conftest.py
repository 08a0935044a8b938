import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Cloud:
    """The scripts of tpu/, with a fake gcloud and kubectl on their PATH."""

    def __init__(self, folder: Path):
        self.folder = folder
        fake = (Path(__file__).parent / "fake_cloud.py").read_text()
        (folder / "bin").mkdir()
        for name in ("gcloud", "kubectl"):
            program = folder / "bin" / name
            program.write_text(f"#!{sys.executable} -I\n{fake}")
            program.chmod(0o755)
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "FAKE_CLOUD": str(folder), "GRM_POLL_SECONDS": "0.05"}

    def tell(self, *entries):
        """(a word of a call or "", answer, ...): each answer is standard output, an exit code, or {"out", "error", "code"}."""

        def full(answer):
            if isinstance(answer, dict):
                return answer
            return {"code": answer} if isinstance(answer, int) else {"out": f"{answer}\n"}

        answers = [{"when": when, "answers": [full(each) for each in given]} for when, *given in entries]
        (self.folder / "answers.json").write_text(json.dumps(answers))

    def hosts(self, count):
        """Home folders of that many hosts."""
        homes = [self.folder / "hosts" / str(i) for i in range(count)]
        for home in homes:
            (home / "bin").mkdir(parents=True)
        return homes

    def shell(self, *words):
        return subprocess.run(
            [str(word) for word in words], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def run(self, script, *arguments):
        """Runs tpu/SCRIPT; returns its exit code, standard output and standard error."""
        return self.shell(ROOT / "tpu" / script, *arguments)

    @property
    def records(self):
        """All calls of gcloud and kubectl since the last look: {"argv", "stdin"}."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    @property
    def calls(self):
        return [record["argv"] for record in self.records]


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)
