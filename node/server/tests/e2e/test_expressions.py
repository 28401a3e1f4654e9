"""Conditions, updates, filters and projections through boto3."""

import threading
from decimal import Decimal

import boto3
import pytest
from boto3.dynamodb.conditions import Attr, Key
from botocore.config import Config
from botocore.exceptions import ClientError


@pytest.fixture(scope="module")
def tables(shared_node):
    """A resource on a node with two tables: `simple` by `pk`, and `sorted` by `pk` and `sk`."""
    resource = boto3.resource(
        "dynamodb", endpoint_url=f"http://{shared_node.http}", region_name="us-east-1",
        aws_access_key_id="anykey", aws_secret_access_key="anysecret", config=Config(retries={"max_attempts": 1}),
    )
    for name, keys in (("simple", ["pk"]), ("sorted", ["pk", "sk"])):
        resource.create_table(
            TableName=name, BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"))],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
        )
    return resource


@pytest.fixture(scope="module")
def simple(tables):
    return tables.Table("simple")


@pytest.fixture(scope="module")
def ordered(tables):
    table = tables.Table("sorted")
    with table.batch_writer() as batch:
        for number in range(40):
            batch.put_item(Item={
                "pk": "p", "sk": f"{number:03}", "n": number, "even": number % 2 == 0,
                "m": {"tags": {"x", str(number)}, "l": [number, {"deep": "value"}]},
            })
    return table


def test_a_condition_decides(simple):
    item = {"pk": "lock", "owner": "a"}
    simple.put_item(Item=item, ConditionExpression=Attr("pk").not_exists())
    with pytest.raises(ClientError) as error:
        simple.put_item(
            Item={"pk": "lock", "owner": "b"}, ConditionExpression=Attr("pk").not_exists(),
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert error.value.response["Error"] == {
        "Code": "ConditionalCheckFailedException", "Message": "The conditional request failed",
    }
    assert error.value.response["Item"] == {"pk": {"S": "lock"}, "owner": {"S": "a"}}
    with pytest.raises(ClientError):
        simple.delete_item(Key={"pk": "lock"}, ConditionExpression=Attr("owner").eq("b"))
    assert simple.get_item(Key={"pk": "lock"})["Item"] == item
    simple.delete_item(Key={"pk": "lock"}, ConditionExpression=Attr("owner").is_in(["a", "c"]))
    assert "Item" not in simple.get_item(Key={"pk": "lock"})


def test_updates(simple):
    def update(expression, values=None, returns="ALL_NEW"):
        extra = {"ExpressionAttributeValues": values} if values else {}
        return simple.update_item(
            Key={"pk": "u"}, UpdateExpression=expression, ReturnValues=returns, **extra
        ).get("Attributes")

    assert update("SET n = :n, l = :l, m = :m", {":n": 1, ":l": ["a"], ":m": {}}) == {
        "pk": "u", "n": 1, "l": ["a"], "m": {},
    }
    assert update("SET n = n + :n, l = list_append(l, :l), m.k = :n", {":n": 1, ":l": ["b"]}, "UPDATED_NEW") == {
        "n": 2, "l": ["a", "b"], "m": {"k": 1},
    }
    assert update("SET n = if_not_exists(n, :n), x = if_not_exists(x, :n)", {":n": 9}, "UPDATED_OLD") == {"n": 2}
    assert update("REMOVE l[0], m.k ADD s :s, n :n", {":s": {"p", "q"}, ":n": Decimal("-0.5")}) == {
        "pk": "u", "n": Decimal("1.5"), "l": ["b"], "m": {}, "s": {"p", "q"}, "x": 9,
    }
    assert update("DELETE s :s", {":s": {"p", "q"}}, "UPDATED_NEW") is None
    with pytest.raises(ClientError, match="This attribute is part of the key"):
        update("SET pk = :v", {":v": "w"})
    with pytest.raises(ClientError, match="incorrect data type"):
        update("SET l = l + :v", {":v": 1})
    assert simple.get_item(Key={"pk": "u"})["Item"] == {"pk": "u", "n": Decimal("1.5"), "l": ["b"], "m": {}, "x": 9}


def test_an_update_cannot_make_an_item_too_large(simple):
    simple.put_item(Item={"pk": "large", "a": "x" * 300_000})
    with pytest.raises(ClientError, match="Item size to update has exceeded the maximum allowed size"):
        simple.update_item(
            Key={"pk": "large"}, UpdateExpression="SET b = :b", ExpressionAttributeValues={":b": "x" * 110_000},
        )
    assert set(simple.get_item(Key={"pk": "large"})["Item"]) == {"pk", "a"}


def test_counting_at_once_is_exact(simple):
    def count():
        for _ in range(50):
            simple.update_item(
                Key={"pk": "counter"}, UpdateExpression="ADD n :one", ExpressionAttributeValues={":one": 1},
            )

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert simple.get_item(Key={"pk": "counter"})["Item"]["n"] == 400


def test_filters_count_what_they_look_at(ordered):
    page = ordered.query(
        KeyConditionExpression=Key("pk").eq("p") & Key("sk").between("010", "019"),
        FilterExpression=Attr("even").eq(True) & Attr("m.tags").contains("x"),
        ProjectionExpression="sk, m.l[1].deep",
    )
    assert (page["Count"], page["ScannedCount"]) == (5, 10)
    assert page["Items"][0] == {"sk": "010", "m": {"l": [{"deep": "value"}]}}
    page = ordered.query(KeyConditionExpression=Key("pk").eq("p"), FilterExpression=Attr("n").gte(35), Limit=30)
    assert (page["Count"], page["ScannedCount"], page["LastEvaluatedKey"]["sk"]) == (0, 30, "029")
    page = ordered.query(
        KeyConditionExpression=Key("pk").eq("p"), FilterExpression=Attr("n").gte(35),
        ExclusiveStartKey=page["LastEvaluatedKey"], Select="COUNT",
    )
    assert (page["Count"], page["ScannedCount"]) == (5, 10)
    assert "Items" not in page


def test_scans_filter_on_keys_too(ordered):
    page = ordered.scan(FilterExpression=Attr("sk").begins_with("00") & Attr("n").ne(3) & Attr("m.l").size().eq(2))
    assert sorted(int(item["n"]) for item in page["Items"]) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert page["ScannedCount"] == 40


def test_projections(ordered, tables):
    key = {"pk": "p", "sk": "007"}
    item = ordered.get_item(Key=key, ProjectionExpression="#n, m.l[0], nothing", ExpressionAttributeNames={"#n": "n"})
    assert item["Item"] == {"n": 7, "m": {"l": [7]}}
    answer = tables.batch_get_item(RequestItems={"sorted": {"Keys": [key], "ProjectionExpression": "n"}})
    assert answer["Responses"]["sorted"] == [{"n": 7}]


def test_legacy_parameters(shared_node, simple, ordered):
    client = shared_node.client()
    key = {"pk": {"S": "legacy"}}
    client.put_item(TableName="simple", Item={**key, "n": {"N": "1"}}, Expected={"pk": {"Exists": False}})
    with pytest.raises(client.exceptions.ConditionalCheckFailedException):
        client.put_item(TableName="simple", Item=key, Expected={"pk": {"Exists": False}})
    answer = client.update_item(
        TableName="simple", Key=key, AttributeUpdates={"n": {"Action": "ADD", "Value": {"N": "2"}}},
        Expected={"n": {"ComparisonOperator": "LT", "AttributeValueList": [{"N": "5"}]}}, ReturnValues="UPDATED_NEW",
    )
    assert answer["Attributes"] == {"n": {"N": "3"}}
    page = client.query(
        TableName="sorted", AttributesToGet=["n"],
        KeyConditions={"pk": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "p"}]}},
        QueryFilter={"n": {"ComparisonOperator": "GT", "AttributeValueList": [{"N": "38"}]}},
    )
    assert page["Items"] == [{"n": {"N": "39"}}]
    page = client.scan(
        TableName="sorted", Select="COUNT", ConditionalOperator="OR",
        ScanFilter={
            "n": {"ComparisonOperator": "EQ", "AttributeValueList": [{"N": "1"}]},
            "sk": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "002"}]},
        },
    )
    assert page["Count"] == 2


def test_counts_survive_a_kill(node):
    client = node.client()
    client.create_table(
        TableName="kept", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )
    for _ in range(3):
        for _ in range(20):
            client.update_item(
                TableName="kept", Key={"pk": {"S": "k"}}, UpdateExpression="ADD n :one",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )
        node.kill()
        node.start()
        client = node.client()
    assert client.get_item(TableName="kept", Key={"pk": {"S": "k"}})["Item"]["n"] == {"N": "60"}
