"""The README's session with the AWS CLI."""

import json


def test_the_session_of_the_readme(node):
    node.cli(
        "create-table", "--table-name", "music", "--billing-mode", "PAY_PER_REQUEST",
        "--attribute-definitions", "AttributeName=artist,AttributeType=S", "AttributeName=song,AttributeType=S",
        "--key-schema", "AttributeName=artist,KeyType=HASH", "AttributeName=song,KeyType=RANGE")
    node.cli("wait", "table-exists", "--table-name", "music")
    item = {"artist": {"S": "Nina Simone"}, "song": {"S": "Sinnerman"}, "year": {"N": "1965"}}
    node.cli("put-item", "--table-name", "music", "--item", json.dumps(item))
    key = {"artist": item["artist"], "song": item["song"]}
    got = node.cli("get-item", "--table-name", "music", "--key", json.dumps(key), "--consistent-read")
    assert json.loads(got.stdout)["Item"] == item
    found = node.cli(
        "query", "--table-name", "music", "--key-condition-expression", "artist = :a AND begins_with(song, :s)",
        "--expression-attribute-values", json.dumps({":a": {"S": "Nina Simone"}, ":s": {"S": "Sin"}}))
    assert json.loads(found.stdout)["Items"] == [item]
    missing = node.cli("get-item", "--table-name", "nosuch", "--key", json.dumps(key), check=False)
    assert missing.returncode != 0 and "ResourceNotFoundException" in missing.stderr
    assert node.stop() == 0
