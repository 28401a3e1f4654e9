"""Drives that come and go while clients write."""

import shutil
import threading

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
    assert listed.count(": in sync") == 2 and listed.count("not counted") == 1, listed
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
