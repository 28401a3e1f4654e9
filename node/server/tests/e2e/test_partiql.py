"""PartiQL statements through boto3."""

import pytest
from botocore.exceptions import ClientError

from conftest import create_table


@pytest.fixture(scope="module")
def client(shared_node):
    client = shared_node.client()
    create_table(client, "songs", sort="N")
    return client


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"]


def test_a_statement_of_each_kind(client):
    insert = "INSERT INTO songs VALUE {'p': ?, 's': ?, 'title': ?, 'tags': <<'a', 'b'>>}"
    parameters = [{"S": "nina"}, {"N": "1"}, {"S": "Sinnerman"}]
    client.execute_statement(Statement=insert, Parameters=parameters)
    assert refused(client.execute_statement, Statement=insert, Parameters=parameters) == "DuplicateItemException"

    read = "SELECT title, tags FROM songs WHERE p = 'nina' AND s = 1 AND contains(tags, 'a')"
    assert client.execute_statement(Statement=read, ConsistentRead=True)["Items"] == [
        {"title": {"S": "Sinnerman"}, "tags": {"SS": ["a", "b"]}}
    ]

    update = "UPDATE songs SET plays = 1, tags = set_add(tags, <<'c'>>) WHERE p = 'nina' AND s = 1 RETURNING MODIFIED NEW *"
    assert client.execute_statement(Statement=update)["Items"] == [
        {"plays": {"N": "1"}, "tags": {"SS": ["a", "b", "c"]}}
    ]
    missing = "UPDATE songs SET plays = 1 WHERE p = 'nobody' AND s = 1"
    assert refused(client.execute_statement, Statement=missing) == "ConditionalCheckFailedException"

    delete = "DELETE FROM songs WHERE p = 'nina' AND s = 1 AND plays = 1 RETURNING ALL OLD *"
    assert client.execute_statement(Statement=delete)["Items"][0]["title"] == {"S": "Sinnerman"}
    assert client.execute_statement(Statement=read)["Items"] == []
    assert refused(client.execute_statement, Statement="SELECTT") == "ValidationException"
    # What a transaction does not take.
    assert refused(client.execute_transaction, TransactStatements=[{"Statement": delete}]) == "ValidationException"


def test_pages(client):
    for number in range(25):
        client.put_item(TableName="songs", Item={"p": {"S": "pages"}, "s": {"N": str(number)}})
    found, arguments = [], {"Statement": "SELECT s FROM songs WHERE p = ? ORDER BY s DESC", "Parameters": [{"S": "pages"}]}
    while True:
        page = client.execute_statement(Limit=10, **arguments)
        found += [int(item["s"]["N"]) for item in page["Items"]]
        if "NextToken" not in page:
            break
        arguments["NextToken"] = page["NextToken"]
    assert found == list(reversed(range(25)))


def test_batches(client):
    inserts = [{"Statement": f"INSERT INTO songs VALUE {{'p': 'batch', 's': {number}}}"} for number in range(5)]
    answers = client.batch_execute_statement(Statements=inserts)["Responses"]
    assert all(answer == {"TableName": "songs"} for answer in answers)
    reads = [
        {"Statement": "SELECT * FROM songs WHERE p = 'batch' AND s = ?", "Parameters": [{"N": str(number)}]}
        for number in range(6)
    ]
    reads.append({"Statement": "SELECT * FROM nowhere WHERE p = 'batch'"})
    answers = client.batch_execute_statement(Statements=reads)["Responses"]
    assert [answer.get("Item", {}).get("s", {}).get("N") for answer in answers] == ["0", "1", "2", "3", "4", None, None]
    assert answers[6]["Error"]["Code"] == "ResourceNotFound"
