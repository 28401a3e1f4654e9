#!/usr/bin/env python3
"""Runs the public test suite nubo-db/dynamodb-conformance against the real binary and holds what differs to docs/compatibility.md.

    git clone https://github.com/nubo-db/dynamodb-conformance suite && cd suite
    git checkout 0ba4393668860db921afa5728feffe68b55e3e93 && rm package-lock.json && npm install
    CAIRN_BINARIES=target/debug node/server/tests/suite/check.py suite --shards 1 --shards 4

A fresh node is started for every `--shards`. The cases that fail must be those that the document names, each with its source, and
no others: a case that is named and passes is an error too, as are a suite of another size and a case that was skipped.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

DOCUMENT = Path(__file__).parents[4] / "docs" / "compatibility.md"
SECTION = "Cases of the suite that are not met"
CASES = 601
START_SECONDS_MAX = 60
SUITE_SECONDS_MAX = 1800


def documented():
    """The file and title of every case that the document names."""
    section = DOCUMENT.read_text().split(f"\n## {SECTION}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (tier\S+) \| (.+?) \| (.+?) \|$", section, re.M)
    named = {(file, title) for file, title, _ in rows}
    assert len(named) == len(rows), "a case is named twice"
    return named


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
        return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def run(suite, shards, home):
    """What the suite says of a fresh node with so many shards: the results of all cases by file and title."""
    binary = Path(os.environ.get("CAIRN_BINARIES", "target/debug")).resolve() / "cairn"
    log, results = home / "log", home / "results.json"
    command = [str(binary), "serve", "--state", str(home / "state"), "--shards", str(shards), "--memory", "512MiB"]
    for drive in ("a", "b"):
        command += ["--drive", str(home / drive)]
    for listener in ("http", "native", "admin"):
        command += [f"--{listener}", "127.0.0.1:0"]
    with log.open("w") as output:
        node = subprocess.Popen(command, cwd=home, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        url = None
        while url is None or not answers(url):
            if node.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the node did not start:\n{log.read_text()}")
            time.sleep(0.2)
            found = re.search(r"\bhttp\W+(?:\w+://)?(127\.0\.0\.1:\d+)", log.read_text(), re.I)
            url = f"http://{found[1]}/" if found else None
        environment = {
            **os.environ, "DYNAMODB_ENDPOINT": url, "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        }
        command = ["npx", "vitest", "run", "--reporter=json", f"--outputFile={results}"]
        done = subprocess.run(
            command, cwd=suite, env=environment, text=True, timeout=SUITE_SECONDS_MAX,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
    finally:
        node.terminate()
        node.wait()
    if not results.exists():
        sys.exit(f"the suite did not run:\n{done.stdout}")
    cases = []
    for file in json.loads(results.read_text())["testResults"]:
        name = file["name"].split("/tests/")[1].removesuffix(".test.ts")
        if not file["assertionResults"]:
            sys.exit(f"{name} did not run: {file.get('message')}")
        cases += [((name, case["title"]), case["status"], case.get("failureMessages")) for case in file["assertionResults"]]
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="where the suite is, with its packages installed")
    parser.add_argument("--shards", type=int, action="append", help="shards of the node; may be given several times (1 and 2)")
    options = parser.parse_args()
    named = documented()
    wrong = 0
    for shards in options.shards or [1, 2]:
        with tempfile.TemporaryDirectory() as home:
            cases = run(options.suite.resolve(), shards, Path(home))
        passed = sum(status == "passed" for _, status, _ in cases)
        print(f"{shards} shard(s): {passed} of {len(cases)} cases pass, {len(named)} are named as not met")
        if len(cases) != CASES:
            print(f"  the suite has {len(cases)} cases, not {CASES}: it is another version")
            wrong += 1
        failed = {case for case, status, _ in cases if status == "failed"}
        for (file, title), status, messages in cases:
            if status not in ("passed", "failed") or (status == "failed" and (file, title) not in named):
                print(f"  {status}, and not named: {file} | {title} | {''.join(messages or [])[:300]}")
                wrong += 1
        for file, title in sorted(named - failed):
            print(f"  named, and met: {file} | {title}")
            wrong += 1
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
