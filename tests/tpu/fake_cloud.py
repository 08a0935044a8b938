"""gcloud and kubectl for tests: writes down what it is called with, and answers as it was told, or like a slice that is there.

It stands on the PATH under both names. The folder $FAKE_CLOUD holds

    calls.jsonl     a line for each call: {"argv": [...], "stdin": "..."}
    answers.json    [{"when": word, "answers": [{"out": "", "error": "", "code": 0}, ...]}, ...]; the answers of the first
                    entry whose word is one of the call's, or empty, are given one after another, the last again and again
    hosts/0, ...    home folders. `ssh --command` is run by a shell in each that --worker names, as sshd would; scp copies
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ["FAKE_CLOUD"])


def told(argv):
    """The answer to a call that was told beforehand, if there is one."""
    path = ROOT / "answers.json"
    entries = json.loads(path.read_text()) if path.exists() else []
    for entry in entries:
        if entry["when"] in ("", *argv):
            answer = entry["answers"][0]
            if len(entry["answers"]) > 1:
                del entry["answers"][0]
                path.write_text(json.dumps(entries))
            return answer
    return None


def value(argv, option):
    return next((word.partition("=")[2] for word in argv if word.startswith(f"{option}=")), "")


def chosen_hosts(argv):
    hosts, worker = sorted((ROOT / "hosts").glob("*")), value(argv, "--worker")
    return hosts if worker == "all" else [hosts[int(worker)]] if hosts else []


def ssh(argv):
    """The command's text goes to the login shell of each host; the first exit code that is not 0 is ours, as gcloud's is."""
    code = 0
    for host in chosen_hosts(argv):
        environment = {"HOME": str(host), "USER": "user", "PATH": f"{host}/bin:/usr/bin:/bin"}
        done = subprocess.run(["bash", "-c", value(argv, "--command")], cwd=host, env=environment, check=False)
        code = code or done.returncode
    return code


def scp(argv):
    source, target = (word for word in argv[5:] if not word.startswith("--"))
    for host in chosen_hosts(argv):
        if ":" in target:
            shutil.copy(source, host / target.partition(":")[2])
        else:
            shutil.copytree(host / source.partition(":")[2].lstrip("/"), target)
    return 0


def main():
    argv = [Path(sys.argv[0]).name, *sys.argv[1:]]
    stdin = sys.stdin.read() if argv[:2] == ["kubectl", "create"] else ""
    with open(ROOT / "calls.jsonl", "a") as file:
        file.write(json.dumps({"argv": argv, "stdin": stdin}) + "\n")
    answer = told(argv)
    if answer:
        sys.stdout.write(answer.get("out", ""))
        sys.stderr.write(answer.get("error", ""))
        return answer.get("code", 0)
    verbs = {"ssh": ssh, "scp": scp}
    return verbs[argv[4]](argv) if argv[0] == "gcloud" and argv[4] in verbs else 0


sys.exit(main())
