"""Drives that come and go while clients write."""

import shutil
import threading

from conftest import eventually
from test_faults import all_there, fill, item


class Writer:
    """Writes items one after the other until told to stop; every one must be acknowledged."""

    def __init__(self, node, first):
        self.client, self.first, self.next = node.client(), first, first
        self.stopped = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.stopped.is_set():
            try:
                self.client.put_item(TableName="faults", Item=item(self.next, 1000))
            except Exception as error:  # noqa: BLE001: told to the test
                self.failure = error
                return
            self.next += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join(timeout=60)
        assert self.failure is None, self.failure
        assert self.next > self.first, "it wrote while the drives changed"


def segments(drive):
    return sorted(path.name for path in drive.iterdir() if path.name.startswith("segment-"))


def test_a_drive_is_added_and_another_removed(node):
    fill(node.client(), 100)
    first, second = node.drives
    third = node.home / "drive-c"
    with Writer(node, 100) as writer:
        said = node.operate(0, "add", third)
        assert f"{third} is in sync" in said, said
        assert "already" in node.operate(0, "add", third)
        # By a path relative to where the command runs.
        said = node.operate(0, "remove", first.name)
        assert "is no drive of this node any more" in said, said
        assert "first add a drive" in node.operate(1, "remove", second)
    count = writer.next
    assert segments(first) == []
    listed = node.operate(0, "list")
    assert listed.count(": in sync") == 2 and listed.count(": removed") == 1, listed
    assert node.stop() == 0
    shutil.rmtree(first)
    node.drives = [second, third]
    node.start()
    all_there(node.client(), count)
    # Each of the two has everything.
    for lost in (second, third):
        node.kill()
        aside = node.home / "aside"
        lost.rename(aside)
        node.start()
        all_there(node.client(), count)
        node.kill()
        aside.rename(lost)
        node.start()
        node.operate(0, "rebuild", lost)


def test_a_lost_drive_is_rebuilt_while_serving(node):
    fill(node.client(), 100)
    _, second = node.drives
    count = 100
    for empty in (False, True):
        node.kill()
        aside = node.home / "aside"
        second.rename(aside)
        node.start()
        assert "OUT OF SYNC" in node.operate(0, "list")
        with Writer(node, count) as writer:
            if empty:
                shutil.rmtree(aside)
            else:
                aside.rename(second)
            said = node.operate(0, "rebuild", second)
            assert f"{second} is in sync" in said, said
        count = writer.next
        assert "already" in node.operate(0, "rebuild", second)
        all_there(node.client(), count)
    node.kill()
    shutil.rmtree(node.drives[0])
    node.start()
    all_there(node.client(), count)
    # What is not ours is not deleted, and a directory that another process has is not taken.
    node.drives[0].mkdir()
    (node.drives[0] / "holiday.jpg").write_text("not ours")
    assert "holiday.jpg" in node.operate(1, "rebuild", node.drives[0])
    assert (node.drives[0] / "holiday.jpg").exists()
    assert "no drive 9" in node.operate(1, "rebuild", 9)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def said_by(node):
    return "".join(node.output)


def metric(node, name):
    lines = [line for line in node.metrics().splitlines() if line.split(" ")[0] == name]
    assert len(lines) == 1, lines
    return int(lines[0].split(" ")[1])


def test_a_directory_that_cannot_be_a_drive_is_refused_and_left_as_it_was(node):
    first, second = node.drives
    home = node.home
    for made in ("pictures/2024", "empty"):
        (home / made).mkdir(parents=True)
    (home / "links").mkdir()
    (home / "links" / "link").symlink_to("/")
    (home / "to-first").symlink_to(first)
    (home / "to-state").symlink_to(node.state)
    (home / "foreign").mkdir()
    (home / "foreign" / "holiday.jpg").write_text("not ours")
    refused = {
        first / "deeper": "is inside the drive",
        home / "to-first" / "deeper": "is inside the drive",
        first / ".." / first.name / "deeper": "is inside the drive",
        home: "is inside the drive",
        node.state: "the state directory",
        home / "to-state": "the state directory",
        home / "pictures": '"2024"',
        home / "links": '"link"',
        home / "foreign": "holiday.jpg",
    }
    for action in ("add", "rebuild"):
        for directory, needle in refused.items():
            said = node.operate(1, action, directory)
            assert needle in said, (directory, said)
    assert names(home / "pictures") == ["2024"] and names(home / "links") == ["link"]
    assert names(home / "foreign") == ["holiday.jpg"] and not (first / "deeper").exists()
    # A directory of the node is known however it is spelled.
    assert "in sync already" in node.operate(0, "add", home / "to-first")
    # Nothing is lost that a new directory could be rebuilt in the place of.
    for directory in (home / "empty", home / "not-there" / "yet"):
        assert "cairn drives add" in node.operate(1, "rebuild", directory)
    assert names(home / "empty") == [] and not (home / "not-there").exists()
    assert metric(node, "cairn_drives") == 2
    assert node.stop() == 0
    node.start()


def test_directories_in_one_another_make_no_node(make_node):
    node = make_node()
    home = node.home
    (home / "link").symlink_to("a")
    (home / "a").mkdir()
    a, b, state = home / "a", home / "b", home / "state"
    for drives, at, needles in [
        ([a, a / "b"], state, ["is inside the drive"]),
        ([a, home / "link"], state, [f"{a} and {home / 'link'} are the same directory"]),
        ([a, home / "x" / ".." / "a"], state, ["are the same directory"]),
        ([home / "link" / "b", a], state, ["is inside the drive"]),
        ([a, b], a / "state", ["the state directory", "is on the drive"]),
        ([a, b], home / "link" / "state", ["the state directory", "is on the drive"]),
        ([a, b], home / "x" / ".." / "b" / "state", ["the state directory", "is on the drive"]),
    ]:
        node.drives, node.state = drives, at
        node.refuses(*needles)
    # Not even a root key.
    assert names(home) == ["a", "link"] and names(a) == []
    # A subdirectory is somebody's: what is refused has no lock left in it.
    (a / "pictures").mkdir()
    node.drives, node.state = [b, a], state
    b.mkdir()
    node.refuses("pictures")
    assert names(a) == ["pictures"] and names(b) == []


def test_a_removed_drive_is_said_to_be_removed(make_node):
    node = make_node()
    node.drives.append(node.home / "drive-c")
    node.start()
    third = node.drives[2]
    node.operate(0, "remove", third)
    assert metric(node, "cairn_drives") == metric(node, "cairn_drives_in_sync") == 2
    eventually(lambda: "a drive has been removed, as an operator asked" in said_by(node))
    assert "has left the mirrors" not in said_by(node)
    for named in (True, False):
        assert node.stop() == 0
        node.drives = node.drives[:2] + ([third] if named else [])
        node.start()
        assert "2 copies on 2 drives, 2 in sync" in said_by(node)
        assert "OUT OF SYNC" not in said_by(node)
        assert (f"{third}: removed: take it out of the configuration" in said_by(node)) == named
        assert metric(node, "cairn_drives") == 2
        listed = node.operate(0, "list")
        assert listed.count(": removed") == 1 and "OUT OF SYNC" not in listed, listed
        for action in ("rebuild", "add"):
            said = node.operate(1, action, third)
            assert "was removed from this node" in said and f"cairn drives add {third}" in said, said
    shutil.rmtree(third)
    third.mkdir()
    assert "is in sync" in node.operate(0, "add", third)
    assert metric(node, "cairn_drives") == 3
    node.drives = [*node.drives[:2], third]
    assert node.stop() == 0
    node.start()
    assert "2 copies on 3 drives, 3 in sync" in said_by(node)
