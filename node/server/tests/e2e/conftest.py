"""Drives the real binary as its users do: started as a process, spoken to through boto3 and the AWS CLI."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

BINARIES = Path(os.environ.get("CAIRN_BINARIES", "target/debug")).resolve()
START_SECONDS_MAX = 30


class Node:
    """A node on directories of its own; `start`, `kill` and `stop` may be called any number of times."""

    def __init__(self, home: Path, arguments=(), environment=None):
        self.home = home
        self.arguments = list(arguments)
        self.shards = 2
        self.environment = environment or {}
        self.drives = [home / "drive-a", home / "drive-b"]
        self.state = home / "state"
        self.process = None
        self.output = []
        self.http = self.native = self.admin = None

    def command(self):
        command = [str(BINARIES / "cairn"), "serve", "--state", str(self.state), "--shards", str(self.shards), "--memory", "256MiB"]
        for drive in self.drives:
            command += ["--drive", str(drive)]
        for listener in ("http", "native", "admin"):
            if f"--{listener}" not in self.arguments:
                command += [f"--{listener}", "127.0.0.1:0"]
        return command + self.arguments

    def spawn(self):
        environment = {**{k: v for k, v in os.environ.items() if not k.startswith("CAIRN_")}, **self.environment}
        return subprocess.Popen(
            self.command(), cwd=self.home, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )

    def start(self):
        self.process = self.spawn()
        self.output = []
        found = {}
        ready = threading.Event()

        def read(stream):
            for line in stream:
                self.output.append(line)
                for name, address in re.findall(r"\b(http|native|admin)\W+(?:\w+://)?(127\.0\.0\.1:\d+)", line, re.I):
                    found.setdefault(name.lower(), address)
                if len(found) == 3:
                    ready.set()
            ready.set()

        threading.Thread(target=read, args=(self.process.stdout,), daemon=True).start()
        if not ready.wait(START_SECONDS_MAX) or len(found) < 3:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the node did not start:\n{''.join(self.output)}")
        self.http, self.native, self.admin = (found[name] for name in ("http", "native", "admin"))
        return self

    def refuses(self, *needles):
        """The node must end by itself with a failure whose message holds every needle."""
        process = self.spawn()
        try:
            output, _ = process.communicate(timeout=START_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError("the node started, but should have refused") from None
        assert process.returncode not in (0, -signal.SIGABRT), output
        for needle in needles:
            assert needle in output, output
        return output

    def rebuild(self, code, *needles):
        """Runs `cairn rebuild`; it must exit with `code` and say every needle."""
        command = ["rebuild", "--state", str(self.state)]
        for drive in self.drives:
            command += ["--drive", str(drive)]
        return self.tool(command, code, *needles)

    def operate(self, code, action, *arguments):
        """Runs `cairn drives ACTION` against the running node; it must exit with `code`. What it said."""
        return self.tool(["drives", action, *map(str, arguments), "--admin", self.admin], code)

    def tool(self, command, code, *needles):
        """Runs the binary; it must exit with `code` and say every needle."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CAIRN_")}
        done = subprocess.run(
            [str(BINARIES / "cairn"), *command], cwd=self.home, env=environment, text=True, timeout=60,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        assert done.returncode == code, done.stdout
        for needle in needles:
            assert needle in done.stdout, done.stdout
        return done.stdout

    def kill(self):
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self):
        """Ends the node as an operator does; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=START_SECONDS_MAX)
        self.process = None
        return code

    def client(self, key="anykey", secret="anysecret", **config):
        config = {"retries": {"max_attempts": 1}, "connect_timeout": 5, "read_timeout": 30, **config}
        return boto3.client(
            "dynamodb", endpoint_url=f"http://{self.http}", region_name="us-east-1",
            aws_access_key_id=key, aws_secret_access_key=secret, config=Config(**config),
        )

    def cli(self, *arguments, check=True):
        """Runs the AWS CLI against the node."""
        environment = {
            **os.environ, "AWS_ACCESS_KEY_ID": "anykey", "AWS_SECRET_ACCESS_KEY": "anysecret",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_PAGER": "", "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_MAX_ATTEMPTS": "1",
        }
        command = [sys.executable, "-m", "awscli", "dynamodb", "--endpoint-url", f"http://{self.http}", *arguments]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def metrics(self):
        from urllib.request import urlopen

        with urlopen(f"http://{self.admin}/metrics", timeout=10) as answer:
            return answer.read().decode()


@pytest.fixture
def make_node():
    """Makes nodes; ends them and removes their directories afterwards."""
    homes, nodes = [], []

    def make(**options):
        home = Path(tempfile.mkdtemp(prefix="cairn-e2e-"))
        homes.append(home)
        nodes.append(Node(home, **options))
        return nodes[-1]

    yield make
    for node in nodes:
        node.kill()
    for home in homes:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def node(make_node):
    return make_node().start()


@pytest.fixture(scope="module")
def shared_node():
    """One node for tests that only need tables of their own."""
    home = Path(tempfile.mkdtemp(prefix="cairn-e2e-"))
    node = Node(home).start()
    yield node
    node.kill()
    shutil.rmtree(home, ignore_errors=True)


def create_table(client, name, sort=None, partition="S"):
    """A table with partition key `p` and, when `sort` names a type, sort key `s`."""
    schema = [{"AttributeName": "p", "KeyType": "HASH"}]
    types = [{"AttributeName": "p", "AttributeType": partition}]
    if sort:
        schema.append({"AttributeName": "s", "KeyType": "RANGE"})
        types.append({"AttributeName": "s", "AttributeType": sort})
    client.create_table(
        TableName=name, KeySchema=schema, AttributeDefinitions=types, BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20})


def eventually(condition, seconds=20):
    """Waits until `condition` holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
