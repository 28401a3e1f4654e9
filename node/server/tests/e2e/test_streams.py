"""Streams through boto3's `dynamodbstreams`, over crashes of the real process: to replay one gives its table."""

import random

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from conftest import create_table

TABLE = "streamed"


def streams(node):
    return boto3.client(
        "dynamodbstreams", endpoint_url=f"http://{node.http}", region_name="us-east-1",
        aws_access_key_id="anykey", aws_secret_access_key="anysecret", config=Config(retries={"max_attempts": 1}),
    )


def create(client, view):
    client.create_table(
        TableName=TABLE, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "p", "KeyType": "HASH"}, {"AttributeName": "s", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": "p", "AttributeType": "S"}, {"AttributeName": "s", "AttributeType": "N"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": view},
    )
    client.get_waiter("table_exists").wait(TableName=TABLE)
    return client.describe_table(TableName=TABLE)["Table"]["LatestStreamArn"]


def records_of(client, arn, shard, limit):
    iterator = client.get_shard_iterator(StreamArn=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    records = []
    while iterator:
        page = client.get_records(ShardIterator=iterator, Limit=limit)
        if not page["Records"]:
            break
        records += page["Records"]
        iterator = page.get("NextShardIterator")
    return records


def all_records(client, arn, limit=1000):
    shards = client.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    assert len(shards) > 1
    return [records_of(client, arn, shard["ShardId"], limit) for shard in shards]


def identity(key):
    return (key["p"]["S"], key["s"]["N"])


def replayed(shards):
    items = {}
    for records in shards:
        numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in records]
        assert numbers == sorted(set(numbers))
        for record in records:
            change = record["dynamodb"]
            key = identity(change["Keys"])
            assert change.get("OldImage") == items.get(key)
            assert record["eventName"] == (
                "REMOVE" if "NewImage" not in change else "MODIFY" if key in items else "INSERT"
            )
            if "NewImage" in change:
                items[key] = change["NewImage"]
            else:
                del items[key]
    return items


def table(client):
    pages = client.get_paginator("scan").paginate(TableName=TABLE)
    return {identity(item): item for page in pages for item in page["Items"]}


def write(client, rng, count):
    for _ in range(count):
        key = {"p": {"S": f"p{rng.randrange(12)}"}, "s": {"N": str(rng.randrange(6))}}
        action = rng.random()
        if action < 0.25:
            client.delete_item(TableName=TABLE, Key=key)
        elif action < 0.5:
            client.update_item(
                TableName=TABLE, Key=key, UpdateExpression="ADD n :n", ExpressionAttributeValues={":n": {"N": "1"}},
            )
        else:
            client.put_item(TableName=TABLE, Item={**key, "text": {"S": rng.choice("xy") * rng.randrange(1, 2000)}})


def test_a_replayed_stream_is_its_table_through_kills(make_node):
    node = make_node().start()
    arn = create(node.client(), "NEW_AND_OLD_IMAGES")
    rng = random.Random(5)
    for shards in (2, 1, 3):
        write(node.client(), rng, 300)
        node.kill()
        node.shards = shards
        node.start()
        assert replayed(all_records(streams(node), arn, rng.choice([7, 100, 1000]))) == table(node.client())
    listed = streams(node).list_streams(TableName=TABLE)["Streams"]
    assert [stream["StreamArn"] for stream in listed] == [arn]


def test_the_operations_have_a_service_of_their_own(shared_node):
    client = shared_node.client()
    create_table(client, "plain")
    with pytest.raises(ClientError) as refused:
        client.update_table(TableName="plain", StreamSpecification={"StreamEnabled": False})
    assert refused.value.response["Error"]["Message"] == "Table has no stream to disable: TableName: plain"
    client.update_table(TableName="plain", StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"})
    arn = client.describe_table(TableName="plain")["Table"]["LatestStreamArn"]
    client.put_item(TableName="plain", Item={"p": {"S": "a"}})
    client.update_table(TableName="plain", StreamSpecification={"StreamEnabled": False})
    reader = streams(shared_node)
    shards = reader.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    assert all("EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in shards)
    assert sum(len(records) for records in all_records(reader, arn)) == 1
    with pytest.raises(reader.exceptions.ResourceNotFoundException):
        reader.describe_stream(StreamArn=arn[:-4] + "9999")
    # Neither service knows the operations of the other.
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    for target in ("DynamoDB_20120810.ListStreams", "DynamoDBStreams_20120810.ListTables"):
        headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.0"}
        with pytest.raises(HTTPError) as unknown:
            urlopen(Request(f"http://{shared_node.http}", data=b"{}", headers=headers), timeout=10)
        assert unknown.value.code == 400
        assert b"UnknownOperationException" in unknown.value.read()
