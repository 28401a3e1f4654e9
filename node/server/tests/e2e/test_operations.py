"""Every operation of the service models in botocore: docs/compatibility.md tells its state, and the node answers so."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import botocore.session
import pytest
from conftest import create_table

DOCUMENT = Path(__file__).parents[4] / "docs" / "compatibility.md"
TARGETS = {"dynamodb": "DynamoDB_20120810", "dynamodbstreams": "DynamoDBStreams_20120810"}
MODELS = {name: botocore.session.get_session().get_service_model(name) for name in TARGETS}
OPERATIONS = [(service, operation) for service, model in MODELS.items() for operation in model.operation_names]


def documented():
    """State and refused parameters of each operation, by the table of all of them."""
    section = DOCUMENT.read_text().split("\n## All operations\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| (done|refused) \| (.*)\|$", section, re.M)
    table = {operation: (state, re.findall(r"\w+", refused)) for operation, state, refused in rows}
    assert len(table) == len(rows), "an operation is listed twice"
    return table


DOCUMENTED = documented()


def value_of(shape, name=""):
    """A value that the shape allows, with what it requires."""
    if shape.name == "AttributeValue":
        return {"S": "a"}
    if shape.type_name == "structure":
        return {member: value_of(shape.members[member], member) for member in shape.required_members}
    if shape.type_name == "list":
        return [value_of(shape.member)]
    if shape.type_name == "map":
        return {"abc": value_of(shape.value)}
    if shape.type_name == "string":
        if shape.enum:
            return shape.enum[0]
        return "a" * max(shape.metadata.get("min", 0), 3)
    if shape.type_name == "boolean":
        return True
    if shape.type_name in ("integer", "long", "float", "double", "timestamp"):
        return max(shape.metadata.get("min", 0), 1)
    raise AssertionError(f"{name}: a {shape.type_name}")


def call(node, service, operation, body):
    """The name of the error and its message; none for an answer."""
    request = urllib.request.Request(
        f"http://{node.http}/", data=json.dumps(body).encode(), method="POST",
        headers={"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"{TARGETS[service]}.{operation}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return None, ""
    except urllib.error.HTTPError as error:
        answer = json.loads(error.read())
        assert error.code == 400, (operation, answer)
        return answer["__type"].split("#")[1], answer.get("message", answer.get("Message", ""))


@pytest.fixture(scope="module")
def node(shared_node):
    create_table(shared_node.client(), "aaa")
    return shared_node


def test_all_operations_are_listed_and_no_others():
    assert sorted(DOCUMENTED) == sorted(operation for _, operation in OPERATIONS)
    counts = [len(model.operation_names) for model in MODELS.values()]
    assert counts == [62, 4], "the service models have changed: the document's counts as well"


@pytest.mark.parametrize("service, operation", OPERATIONS)
def test_the_state_is_what_the_node_answers(node, service, operation):
    state, refused = DOCUMENTED[operation]
    shape = MODELS[service].operation_model(operation).input_shape
    required = value_of(shape) if shape else {}
    error, _ = call(node, service, operation, {})
    if state == "refused":
        assert not refused
        assert error == "UnknownOperationException"
        assert call(node, service, operation, required)[0] == "UnknownOperationException"
        return
    assert error != "UnknownOperationException"
    # An operation belongs to one of the two services.
    (other,) = set(TARGETS) - {service}
    assert call(node, other, operation, {})[0] == "UnknownOperationException"
    members = shape.members if shape else {}
    assert set(refused) <= set(members)
    for name, member in members.items():
        _, message = call(node, service, operation, {**required, **needed_by(operation), name: value_of(member)})
        is_refused = message == f"The parameter {name} is not supported"
        assert is_refused == (name in refused), (name, message)
    error, message = call(node, service, operation, {**required, **needed_by(operation), "Nonsense": 1})
    assert "The parameter Nonsense is not supported" == message, (error, message)


def needed_by(operation):
    """What an operation needs beside what its shape requires."""
    return {
        "CreateTable": {
            "TableName": "aaa", "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}],
        },
        "BatchWriteItem": {"RequestItems": {"aaa": [{"PutRequest": {"Item": {"p": {"S": "a"}}}}]}},
        "TransactWriteItems": {"TransactItems": [{"Put": {"TableName": "aaa", "Item": {"p": {"S": "a"}}}}]},
        "UpdateContinuousBackups": {
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": False},
        },
    }.get(operation, {})
