"""Items through boto3: every type, every operation, paging, and DynamoDB's errors."""

from decimal import Decimal

import pytest
from boto3.dynamodb.types import TypeSerializer
from botocore.exceptions import ClientError
from conftest import create_table

EVERY_TYPE = {
    "p": {"S": "all"},
    "s": {"S": "text \u00e9\u4e2d\U0001f600 \"quoted\" \\ \n"},
    "n": {"N": "-123.456"},
    "big": {"N": "9.9999999999999999999999999999999999999E+125"},
    "small": {"N": "1E-130"},
    "b": {"B": b"\x00\x01\xff"},
    "t": {"BOOL": True},
    "f": {"BOOL": False},
    "z": {"NULL": True},
    "ss": {"SS": ["b", "a"]},
    "ns": {"NS": ["2", "10", "-1"]},
    "bs": {"BS": [b"x", b"\x00"]},
    "l": {"L": [{"S": "a"}, {"N": "1"}, {"L": []}, {"M": {}}]},
    "m": {"M": {"k": {"M": {"deep": {"NULL": True}}}, "": {"S": ""}}},
}


def normal(value):
    """Sets have no order and numbers many spellings."""
    (kind, content), = value.items()
    if kind in ("SS", "BS"):
        return {kind: sorted(content)}
    if kind == "NS":
        return {kind: sorted(map(Decimal, content))}
    if kind == "N":
        return {kind: Decimal(content)}
    if kind == "L":
        return {kind: [normal(member) for member in content]}
    if kind == "M":
        return {kind: {name: normal(member) for name, member in content.items()}}
    return value


def refused(name, call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    assert error["Code"] == name, error
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return error["Message"]


@pytest.fixture(scope="module")
def client(shared_node):
    return shared_node.client()


def test_every_type_comes_back(client):
    create_table(client, "types")
    item = dict(EVERY_TYPE)
    item["m"] = {"M": {"k": EVERY_TYPE["m"]["M"]["k"]}}
    client.put_item(TableName="types", Item=item)
    for consistent in (False, True):
        found = client.get_item(TableName="types", Key={"p": {"S": "all"}}, ConsistentRead=consistent)["Item"]
        assert normal({"M": found}) == normal({"M": item})
    assert client.get_item(TableName="types", Key={"p": {"S": "all"}})["Item"]["n"] == {"N": "-123.456"}


def test_put_replaces_and_delete_removes(client):
    create_table(client, "replace")
    first = {"p": {"S": "k"}, "v": {"N": "1"}}
    second = {"p": {"S": "k"}, "w": {"N": "2"}}
    assert "Attributes" not in client.put_item(TableName="replace", Item=first, ReturnValues="ALL_OLD")
    assert client.put_item(TableName="replace", Item=second, ReturnValues="ALL_OLD")["Attributes"] == first
    key = {"p": {"S": "k"}}
    assert client.delete_item(TableName="replace", Key=key, ReturnValues="ALL_OLD")["Attributes"] == second
    assert "Attributes" not in client.delete_item(TableName="replace", Key=key, ReturnValues="ALL_OLD")
    assert "Item" not in client.get_item(TableName="replace", Key=key, ConsistentRead=True)


def test_consumed_capacity(client):
    create_table(client, "capacity")
    item = {"p": {"S": "k"}, "v": {"S": "x" * 5000}}
    put = client.put_item(TableName="capacity", Item=item, ReturnConsumedCapacity="TOTAL")
    assert put["ConsumedCapacity"] == {"TableName": "capacity", "CapacityUnits": 5.0}
    key = {"p": {"S": "k"}}
    for consistent, units in ((False, 1.0), (True, 2.0)):
        got = client.get_item(
            TableName="capacity", Key=key, ConsistentRead=consistent, ReturnConsumedCapacity="TOTAL")
        assert got["ConsumedCapacity"]["CapacityUnits"] == units


def test_query_pages_in_both_directions(client):
    create_table(client, "query", sort="N")
    numbers = [Decimal(n) / 4 for n in range(-40, 40)]
    for start in range(0, len(numbers), 25):
        puts = [
            {"PutRequest": {"Item": {"p": {"S": "x"}, "s": {"N": str(n)}, "v": {"S": "v" * 100}}}}
            for n in numbers[start:start + 25]
        ]
        assert client.batch_write_item(RequestItems={"query": puts})["UnprocessedItems"] == {}
    client.put_item(TableName="query", Item={"p": {"S": "other"}, "s": {"N": "0"}})

    def query(condition, values, forward, limit):
        found, start = [], {}
        while True:
            page = client.query(
                TableName="query", KeyConditionExpression=condition, ExpressionAttributeValues=values,
                ScanIndexForward=forward, Limit=limit, **start)
            assert page["Count"] == len(page["Items"]) <= limit
            found += [Decimal(item["s"]["N"]) for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                return found
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    p, two, minus = {"S": "x"}, {"N": "2"}, {"N": "-3.5"}
    cases = [
        ("p = :p", {}, lambda n: True),
        ("p = :p AND s = :a", {":a": two}, lambda n: n == 2),
        ("p = :p AND s < :a", {":a": two}, lambda n: n < 2),
        ("p = :p AND s <= :a", {":a": two}, lambda n: n <= 2),
        ("p = :p AND s > :a", {":a": minus}, lambda n: n > Decimal("-3.5")),
        (":p = p AND (s >= :a)", {":a": minus}, lambda n: n >= Decimal("-3.5")),
        ("p = :p AND s BETWEEN :a AND :b", {":a": minus, ":b": two}, lambda n: Decimal("-3.5") <= n <= 2),
    ]
    for condition, values, keep in cases:
        expected = [n for n in numbers if keep(n)]
        for limit in (7, 100):
            assert query(condition, {":p": p, **values}, True, limit) == expected
            assert query(condition, {":p": p, **values}, False, limit) == expected[::-1]
    counted = client.query(
        TableName="query", KeyConditionExpression="p = :p", ExpressionAttributeValues={":p": p}, Select="COUNT")
    assert counted["Count"] == len(numbers) and "Items" not in counted


def test_scan_in_pages_and_segments(client):
    create_table(client, "scan")
    expected = {f"k{n:03}" for n in range(150)}
    for key in sorted(expected):
        client.put_item(TableName="scan", Item={"p": {"S": key}, "v": {"S": "x" * 10}})

    def scan(**arguments):
        found = []
        for page in client.get_paginator("scan").paginate(TableName="scan", **arguments):
            found += [item["p"]["S"] for item in page["Items"]]
        return found

    assert sorted(scan()) == sorted(expected)
    assert sorted(scan(PaginationConfig={"PageSize": 13})) == sorted(expected)
    segments = [scan(Segment=segment, TotalSegments=4) for segment in range(4)]
    assert sorted(sum(segments, [])) == sorted(expected)


def test_a_page_ends_at_one_megabyte(client):
    create_table(client, "large", sort="N")
    body = "x" * 300_000
    for n in range(8):
        client.put_item(TableName="large", Item={"p": {"S": "x"}, "s": {"N": str(n)}, "v": {"S": body}})
    page = client.query(
        TableName="large", KeyConditionExpression="p = :p", ExpressionAttributeValues={":p": {"S": "x"}})
    assert page["Count"] == 4 and page["LastEvaluatedKey"]["s"] == {"N": "3"}
    pages = list(client.get_paginator("scan").paginate(TableName="large"))
    assert sum(page["Count"] for page in pages) == 8


def test_batch_get(client):
    create_table(client, "batch")
    for n in range(10):
        client.put_item(TableName="batch", Item={"p": {"S": f"k{n}"}, "v": {"N": str(n)}})
    keys = [{"p": {"S": f"k{n}"}} for n in range(15)]
    answer = client.batch_get_item(RequestItems={"batch": {"Keys": keys, "ConsistentRead": True}})
    assert sorted(item["p"]["S"] for item in answer["Responses"]["batch"]) == [f"k{n}" for n in range(10)]
    assert answer["UnprocessedKeys"] == {}
    refused("ValidationException", client.batch_get_item, RequestItems={"batch": {"Keys": keys[:1] * 2}})


def test_tables(client):
    create_table(client, "tables-b", sort="B", partition="N")
    create_table(client, "tables-a")
    names = client.list_tables()["TableNames"]
    assert names == sorted(names) and {"tables-a", "tables-b"} <= set(names)
    described = client.describe_table(TableName="tables-b")["Table"]
    assert described["TableStatus"] == "ACTIVE"
    assert described["KeySchema"] == [
        {"AttributeName": "p", "KeyType": "HASH"}, {"AttributeName": "s", "KeyType": "RANGE"}]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    with pytest.raises(client.exceptions.ResourceInUseException):
        create_table(client, "tables-a")
    client.put_item(TableName="tables-a", Item={"p": {"S": "gone"}})
    client.delete_table(TableName="tables-a")
    client.get_waiter("table_not_exists").wait(TableName="tables-a", WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_table(TableName="tables-a")
    create_table(client, "tables-a")
    assert "Item" not in client.get_item(TableName="tables-a", Key={"p": {"S": "gone"}}, ConsistentRead=True)


def test_errors_store_nothing(client):
    create_table(client, "errors", sort="N")
    key = {"p": {"S": "k"}, "s": {"N": "1"}}
    bad = [
        {"p": {"S": "k"}},
        {"p": {"S": ""}, "s": {"N": "1"}},
        {"p": {"N": "1"}, "s": {"N": "1"}},
        {**key, "v": {"N": "1e126"}},
        {**key, "v": {"N": "123456789012345678901234567890123456789"}},
        {**key, "v": {"N": "abc"}},
        {**key, "v": {"SS": []}},
        {**key, "v": {"SS": ["a", "a"]}},
        {**key, "v": {"NS": ["1", "1.0"]}},
        {**key, "v": {"NULL": False}},
        {**key, "v": {"S": "x" * 409_600}},
        {**key, "v": TypeSerializer().serialize(nested(33))},
    ]
    for item in bad:
        refused("ValidationException", client.put_item, TableName="errors", Item=item)
    assert client.scan(TableName="errors")["Items"] == []
    refused("ResourceNotFoundException", client.get_item, TableName="nosuch", Key={"p": {"S": "k"}})
    refused("ResourceNotFoundException", client.put_item, TableName="nosuch", Item=key)
    message = refused("ValidationException", client.get_item, TableName="errors", Key={"p": {"S": "k"}})
    assert message == "The provided key element does not match the schema"


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_what_is_not_built_yet_says_so(client):
    create_table(client, "unbuilt")
    refused("UnknownOperationException", client.create_backup, TableName="unbuilt", BackupName="none")
    message = refused(
        "ValidationException", client.create_table, TableName="unbuilt2", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "p", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "p", "AttributeType": "S"}],
        SSESpecification={"Enabled": True})
    assert "SSESpecification" in message
