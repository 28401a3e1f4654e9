"""Transactions through boto3: done or not, once for each token, through kills, and never seen by half."""

import random
import threading
import time

import pytest
from botocore.exceptions import ClientError, ConnectionError as NoConnection, EndpointConnectionError, HTTPClientError
from conftest import create_table

ACCOUNTS = [{"p": {"S": f"account-{number}"}} for number in range(6)]


def add(key, amount, table="bank"):
    return {"Update": {
        "TableName": table, "Key": key, "UpdateExpression": "ADD n :n",
        "ExpressionAttributeValues": {":n": {"N": str(amount)}},
    }}


def balances(client, table="bank"):
    gets = [{"Get": {"TableName": table, "Key": key}} for key in ACCOUNTS]
    for _ in range(50):
        try:
            answer = client.transact_get_items(TransactItems=gets)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "TransactionCanceledException"
            time.sleep(0.01)
            continue
        return [int(response["Item"]["n"]["N"]) for response in answer["Responses"]]
    raise AssertionError("the items are held without end")


def test_reasons_come_in_order(shared_node):
    client = shared_node.client()
    create_table(client, "reasons")
    client.put_item(TableName="reasons", Item={"p": {"S": "there"}, "n": {"N": "1"}})
    with pytest.raises(client.exceptions.TransactionCanceledException) as caught:
        client.transact_write_items(TransactItems=[
            {"Put": {"TableName": "reasons", "Item": {"p": {"S": "new"}}}},
            {"Delete": {
                "TableName": "reasons", "Key": {"p": {"S": "there"}}, "ConditionExpression": "n > :n",
                "ExpressionAttributeValues": {":n": {"N": "1"}}, "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }},
        ])
    assert caught.value.response["CancellationReasons"] == [
        {"Code": "None"},
        {
            "Code": "ConditionalCheckFailed", "Message": "The conditional request failed",
            "Item": {"p": {"S": "there"}, "n": {"N": "1"}},
        },
    ]
    assert "Item" not in client.get_item(TableName="reasons", Key={"p": {"S": "new"}}, ConsistentRead=True)
    client.execute_transaction(TransactStatements=[
        {"Statement": "EXISTS(SELECT * FROM reasons WHERE p = 'there' AND n = 1)"},
        {"Statement": "INSERT INTO reasons VALUE {'p': ?}", "Parameters": [{"S": "new"}]},
    ])
    read = client.execute_transaction(TransactStatements=[{"Statement": "SELECT * FROM reasons WHERE p = 'new'"}])
    assert read["Responses"] == [{"Item": {"p": {"S": "new"}}}]
    assert ":transactions" not in client.list_tables()["TableNames"]


def test_transfers_through_kills(node):
    """Clients move money, each with a token that it repeats until it is answered; the node is killed under them."""
    client = node.client()
    create_table(client, "bank")
    client.transact_write_items(TransactItems=[add(key, 100) for key in ACCOUNTS])
    done = [0]
    stop = threading.Event()
    failures = []

    def transfer(number):
        chance = random.Random(number)
        round_number = 0
        try:
            while not stop.is_set():
                source, target = chance.sample(ACCOUNTS, 2)
                amount = chance.randrange(1, 10)
                token = f"{number}-{round_number}"
                round_number += 1
                while not stop.is_set():
                    try:
                        node.client().transact_write_items(
                            TransactItems=[add(source, -amount), add(target, amount)], ClientRequestToken=token,
                        )
                        done[0] += 1
                        break
                    except (NoConnection, EndpointConnectionError, HTTPClientError):
                        time.sleep(0.05)
                    except ClientError as error:
                        assert error.response["Error"]["Code"] in (
                            "TransactionCanceledException", "TransactionInProgressException",
                            "InternalServerError", "ServiceUnavailable", "ServiceUnavailableException",
                        ), error
                        time.sleep(0.005)
        except Exception as failure:  # reported by the test's own thread
            failures.append(failure)

    # A thread that is left over must not hold the interpreter, whatever it waits for.
    threads = [threading.Thread(target=transfer, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for shards in (1, 3, 2):
            before = done[0]
            deadline = time.monotonic() + 30
            while done[0] < before + 20 and time.monotonic() < deadline and not failures:
                time.sleep(0.02)
            assert done[0] >= before + 20, failures
            node.kill()
            node.shards = shards
            node.start()
            assert sum(balances(node.client())) == 600
    finally:
        # A test that fails must end as well.
        stop.set()
        for thread in threads:
            thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures
    assert sum(balances(node.client())) == 600
    # Nothing is held any more.
    for key in ACCOUNTS:
        node.client().update_item(
            TableName="bank", Key=key, UpdateExpression="ADD n :n", ExpressionAttributeValues={":n": {"N": "0"}},
        )
    assert node.stop() == 0
