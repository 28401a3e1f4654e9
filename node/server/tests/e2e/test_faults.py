"""Drives, restarts and refusals with the real process."""

import hashlib
import os
import shutil

import pytest
from botocore.exceptions import ClientError
from conftest import create_table, eventually


def fill(client, count, size=1000):
    create_table(client, "faults")
    for start in range(0, count, 25):
        puts = [{"PutRequest": {"Item": item(n, size)}} for n in range(start, min(start + 25, count))]
        assert client.batch_write_item(RequestItems={"faults": puts})["UnprocessedItems"] == {}


def item(n, size):
    text = hashlib.sha256(str(n).encode()).hexdigest() * (size // 64 + 1)
    return {"p": {"S": f"k{n}"}, "v": {"S": text[:size]}}


def all_there(client, count, size=1000):
    for n in range(count):
        found = client.get_item(TableName="faults", Key={"p": {"S": f"k{n}"}}, ConsistentRead=True)
        assert found.get("Item") == item(n, size), n


def test_a_stop_and_a_start_keep_everything(node):
    fill(node.client(), 100)
    assert node.stop() == 0
    node.start()
    all_there(node.client(), 100)


def test_another_core_count(node):
    fill(node.client(), 100)
    for shards in (1, 3):
        assert node.stop() == 0
        node.shards = shards
        node.start()
        all_there(node.client(), 100)


def test_a_second_node_on_the_same_directories_is_refused(node, make_node):
    second = make_node()
    second.drives = node.drives
    second.refuses(str(node.drives[0]), "in use by another process")
    second.state = node.state
    second.refuses("in use by another process")
    assert node.client().list_tables()["TableNames"] == []


def test_one_mirror_deleted(node):
    fill(node.client(), 100)
    node.kill()
    shutil.rmtree(node.drives[1])
    node.start()
    eventually(lambda: f"{node.drives[1]} is not used" in "".join(node.output))
    all_there(node.client(), 100)
    node.client().put_item(TableName="faults", Item=item(1000, 10))


@pytest.mark.parametrize("returns", ["blank", "stale"])
def test_a_mirror_is_rebuilt(node, returns):
    fill(node.client(), 100)
    node.kill()
    aside = node.home / "aside"
    node.drives[1].rename(aside)
    node.start()
    eventually(lambda: "cairn drives rebuild" in "".join(node.output))
    node.client().put_item(TableName="faults", Item=item(100, 1000))
    node.rebuild(1, "in use by another process")
    assert node.stop() == 0
    if returns == "stale":
        aside.rename(node.drives[1])
    told = node.rebuild(0, "copying", "(100%)", "all 2 drives are in sync")
    assert str(node.drives[1]) in told
    # A second time there is nothing to do, and with a foreign file nothing is done.
    assert "copying" not in node.rebuild(0, "all 2 drives are in sync")
    shutil.rmtree(node.drives[0])
    node.start()
    all_there(node.client(), 101)
    assert node.stop() == 0
    node.drives[0].mkdir()
    (node.drives[0] / "holiday.jpg").write_text("not ours")
    node.rebuild(1, "holiday.jpg")
    assert (node.drives[0] / "holiday.jpg").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_bits_flipped_on_one_mirror(node, which):
    fill(node.client(), 300)
    node.kill()
    flipped = 0
    for path in sorted(node.drives[which].iterdir()):
        if path.name.startswith("superblock") or path.stat().st_size < 4096:
            continue
        with open(path, "r+b") as file:
            for offset in range(0, os.path.getsize(path), 4096):
                file.seek(offset)
                block = file.read(4096)
                if any(block):
                    # Bytes that say nothing are not protected: the last one that is not zero is.
                    position = len(block.rstrip(b"\0")) - 1
                    file.seek(offset + position)
                    file.write(bytes([block[position] ^ 1]))
                    flipped += 1
    assert flipped > 0
    node.start()
    all_there(node.client(), 300)
    metrics = node.metrics()
    repaired = [line for line in metrics.splitlines() if "repair" in line and not line.startswith("#")]
    assert any(float(line.rsplit(" ", 1)[1]) > 0 for line in repaired), repaired
    eventually(lambda: "have been written again from another" in "".join(node.output))


def test_a_drive_of_another_node_is_refused(node, make_node):
    other = make_node().start()
    assert node.stop() == 0 and other.stop() == 0
    node.drives[1] = other.drives[1]
    node.refuses(str(other.drives[1]))


def test_a_stale_mirror_alone_is_not_believed(node):
    fill(node.client(), 50)
    node.kill()
    aside = node.home / "aside"
    node.drives[1].rename(aside)
    node.start()
    node.client().put_item(TableName="faults", Item=item(500, 10))
    node.kill()
    # Now the drive that went on is lost and the stale one comes back.
    shutil.rmtree(node.drives[0])
    aside.rename(node.drives[1])
    node.refuses(str(node.drives[1]))


def test_a_directory_that_cannot_be_written(make_node):
    node = make_node()
    node.home.joinpath("drive-a").write_text("a file, not a directory")
    node.refuses(str(node.drives[0]))


def test_addresses_need_credentials(make_node):
    make_node(arguments=["--http", "0.0.0.0:0"]).refuses("--credentials")


def test_signatures_are_checked(make_node):
    node = make_node()
    credentials = node.home / "credentials.toml"
    credentials.write_text('[[key]]\naccess_key_id = "AKIDTEST"\nsecret_access_key = "secret/with+signs"\n')
    credentials.chmod(0o600)
    node.arguments = ["--credentials", str(credentials)]
    node.start()
    good = node.client("AKIDTEST", "secret/with+signs")
    create_table(good, "faults")
    good.put_item(TableName="faults", Item={"p": {"S": "k"}})
    with pytest.raises(ClientError) as caught:
        node.client("AKIDTEST", "wrong").get_item(TableName="faults", Key={"p": {"S": "k"}})
    assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"
    with pytest.raises(ClientError) as caught:
        node.client("AKIDOTHER", "wrong").get_item(TableName="faults", Key={"p": {"S": "k"}})
    assert caught.value.response["Error"]["Code"] == "UnrecognizedClientException"
