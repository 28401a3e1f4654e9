"""Secondary indexes through boto3, over crashes of the real process, and held against their table by `cairn check`."""

import random
import subprocess

from conftest import BINARIES, eventually

TABLE = "indexed"
COLORS = ["red", "green", "blue"]


def create(client):
    def keys(*names):
        return [{"AttributeName": name, "KeyType": role} for name, role in zip(names, ("HASH", "RANGE"))]

    client.create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=keys("id", "n"),
        AttributeDefinitions=[
            {"AttributeName": "id", "AttributeType": "S"},
            {"AttributeName": "n", "AttributeType": "N"},
            {"AttributeName": "color", "AttributeType": "S"},
            {"AttributeName": "weight", "AttributeType": "N"},
        ],
        LocalSecondaryIndexes=[
            {"IndexName": "by-weight", "KeySchema": keys("id", "weight"), "Projection": {"ProjectionType": "KEYS_ONLY"}},
        ],
        GlobalSecondaryIndexes=[
            {"IndexName": "by-color", "KeySchema": keys("color", "weight"), "Projection": {"ProjectionType": "ALL"}},
        ],
    )
    client.get_waiter("table_exists").wait(TableName=TABLE)


def item(rng, number):
    made = {"id": {"S": f"i{number % 7}"}, "n": {"N": str(number % 40)}}
    if rng.random() < 0.8:
        made["color"] = {"S": rng.choice(COLORS)}
    if rng.random() < 0.8:
        made["weight"] = {"N": str(rng.randrange(5))}
    return made


def scan(client, **arguments):
    pages = client.get_paginator("scan").paginate(TableName=TABLE, PaginationConfig={"PageSize": 17}, **arguments)
    return [found for page in pages for found in page["Items"]]


def as_set(items):
    return sorted(str(sorted((name, str(value)) for name, value in found.items())) for found in items)


def equal(client):
    items = scan(client)
    of_local = [
        {name: found[name] for name in ("id", "n", "weight")} for found in items if "weight" in found
    ]
    of_global = [found for found in items if "color" in found and "weight" in found]
    return as_set(scan(client, IndexName="by-weight")) == as_set(of_local) and as_set(
        scan(client, IndexName="by-color")
    ) == as_set(of_global)


def write(client, rng, count):
    for number in range(count):
        made = item(rng, rng.randrange(400))
        if rng.random() < 0.2:
            client.delete_item(TableName=TABLE, Key={name: made[name] for name in ("id", "n")})
        else:
            client.put_item(TableName=TABLE, Item=made)


def check(node):
    command = [str(BINARIES / "cairn"), "check", "--state", str(node.state), *map(str, node.drives)]
    return subprocess.run(command, text=True, capture_output=True, timeout=120)


def test_indexes_equal_their_table_over_kills_and_stops(node):
    client = node.client()
    create(client)
    rng = random.Random(5)
    for shards in (1, 3, 2):
        write(client, rng, 120)
        node.kill()
        node.shards = shards
        node.start()
        client = node.client()
        eventually(lambda: equal(client))
    assert node.stop() == 0
    checked = check(node)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "does not equal" not in checked.stdout


def test_queries_by_index(node):
    client = node.client()
    create(client)
    for number in range(30):
        client.put_item(
            TableName=TABLE,
            Item={
                "id": {"S": "one"},
                "n": {"N": str(number)},
                "color": {"S": COLORS[number % 3]},
                "weight": {"N": str(100 - number)},
            },
        )
    query = {
        "TableName": TABLE,
        "KeyConditionExpression": "#k = :k AND weight BETWEEN :low AND :high",
        "ScanIndexForward": False,
    }

    def weights(index, name, value):
        pages = client.get_paginator("query").paginate(
            IndexName=index,
            ExpressionAttributeNames={"#k": name},
            ExpressionAttributeValues={":k": {"S": value}, ":low": {"N": "80"}, ":high": {"N": "95"}},
            PaginationConfig={"PageSize": 4},
            **query,
        )
        return [int(found["weight"]["N"]) for page in pages for found in page["Items"]]

    assert weights("by-weight", "id", "one") == list(range(95, 79, -1))
    eventually(lambda: weights("by-color", "color", "red") == [94, 91, 88, 85, 82])
    local = client.describe_table(TableName=TABLE)["Table"]["LocalSecondaryIndexes"]
    assert [index["ItemCount"] for index in local] == [30]

    def counted():
        (by_color,) = client.describe_table(TableName=TABLE)["Table"]["GlobalSecondaryIndexes"]
        return (by_color["IndexStatus"], by_color["ItemCount"]) == ("ACTIVE", 30)

    eventually(counted)
