"""Operations on tables as boto3, the AWS CLI and Terraform use them."""

import gzip
import json
import time
import urllib.request

import pytest
from botocore.exceptions import ClientError
from conftest import create_table, eventually
from test_items import refused


@pytest.fixture(scope="module")
def client(shared_node):
    return shared_node.client()


def test_what_terraform_asks_of_a_table(client):
    """The calls that aws_dynamodb_table makes to create, read, change and destroy a table."""
    client.create_table(
        TableName="orders", KeySchema=[{"AttributeName": "p", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "p", "AttributeType": "S"}],
        BillingMode="PROVISIONED", ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
        TableClass="STANDARD", DeletionProtectionEnabled=True, Tags=[{"Key": "team", "Value": "blue"}],
    )
    client.get_waiter("table_exists").wait(TableName="orders")
    table = client.describe_table(TableName="orders")["Table"]
    arn = table["TableArn"]
    assert table["DeletionProtectionEnabled"] and table["TableClassSummary"]["TableClass"] == "STANDARD"
    backups = client.describe_continuous_backups(TableName="orders")["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "DISABLED"
    assert client.describe_time_to_live(TableName="orders")["TimeToLiveDescription"]["TimeToLiveStatus"] == "DISABLED"
    assert client.list_tags_of_resource(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "blue"}]

    client.update_table(TableName="orders", BillingMode="PAY_PER_REQUEST")
    client.update_table(TableName="orders", TableClass="STANDARD_INFREQUENT_ACCESS")
    client.update_time_to_live(
        TableName="orders", TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True})
    client.untag_resource(ResourceArn=arn, TagKeys=["team"])
    client.tag_resource(ResourceArn=arn, Tags=[{"Key": "stage", "Value": "live"}])
    table = client.describe_table(TableName=arn)["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["TableClassSummary"]["TableClass"] == "STANDARD_INFREQUENT_ACCESS"
    assert client.list_tags_of_resource(ResourceArn=arn)["Tags"] == [{"Key": "stage", "Value": "live"}]

    assert "protected against deletion" in refused("ValidationException", client.delete_table, TableName="orders")
    client.update_table(TableName="orders", DeletionProtectionEnabled=False)
    client.delete_table(TableName="orders")
    client.get_waiter("table_not_exists").wait(TableName="orders", WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    with pytest.raises(ClientError) as caught:
        client.describe_continuous_backups(TableName="orders")
    assert caught.value.response["Error"]["Code"] == "TableNotFoundException"


def test_limits_and_endpoints(shared_node, client):
    assert client.describe_limits()["TableMaxReadCapacityUnits"] == 10**12
    assert client.describe_endpoints()["Endpoints"] == [{"Address": shared_node.http, "CachePeriodInMinutes": 1440}]
    assert client.list_backups()["BackupSummaries"] == []


def test_expired_items_go(shared_node, client):
    create_table(client, "sessions")
    now = int(time.time())
    client.update_time_to_live(
        TableName="sessions", TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True})
    for n in range(20):
        ttl = now - 100 if n % 2 else now + 3600
        client.put_item(TableName="sessions", Item={"p": {"S": f"{n}"}, "ttl": {"N": f"{ttl}"}})

    def left():
        return sorted(int(item["p"]["S"]) for item in client.scan(TableName="sessions")["Items"])

    eventually(lambda: left() == list(range(0, 20, 2)))
    eventually(lambda: "cairn_expired_items_total 10" in shared_node.metrics())
    assert client.describe_table(TableName="sessions")["Table"]["ItemCount"] == 10


def test_compressed_bodies(shared_node, client):
    create_table(client, "zipped")
    item = {"p": {"S": "a"}, "text": {"S": "long " * 2000}}

    def ask(operation, body, **headers):
        request = urllib.request.Request(f"http://{shared_node.http}/", data=body, headers={
            "X-Amz-Target": f"DynamoDB_20120810.{operation}", "Content-Type": "application/x-amz-json-1.0", **headers})
        return urllib.request.urlopen(request, timeout=10)

    body = json.dumps({"TableName": "zipped", "Item": item}).encode()
    ask("PutItem", gzip.compress(body), **{"Content-Encoding": "gzip"}).close()
    body = json.dumps({"TableName": "zipped", "Key": {"p": item["p"]}}).encode()
    with ask("GetItem", body, **{"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        sent = answer.read()
    assert len(sent) < 1000
    assert json.loads(gzip.decompress(sent))["Item"] == item
