//! What requests are answered with.

use cairn_protocol::message::{KeyPart, Operation, Retry, SortCondition, Write, response};
use cairn_runtime::Runtime;
use expect_test::expect;

use crate::{archived, key, with_node};

/// An item of `count` sets of one empty member: 1 byte each as DynamoDB counts, 14 in the archive.
fn swollen(sort: &str, count: usize) -> String {
    let sets = vec![r#"{"SS":[""]}"#; count].join(",");
    format!(r#"{{"pk":{{"S":"p"}},"sk":{{"S":"{sort}"}},"l":{{"L":[{sets}]}}}}"#)
}

#[test]
fn pages_end_before_their_archived_items_exceed_a_frame() {
    with_node(None, async |world| {
        let table = world.create("tab").await;
        let mut client = world.client().await;
        for sort in ["a", "b", "c", "d", "e", "f", "g"] {
            let item = archived(&swollen(sort, 200_000));
            assert!(item.len() > 2_800_000);
            let put = Operation::Put {
                return_old: false,
                item: &item,
            };
            client.ask(table, put).await.unwrap();
        }
        for scans in [false, true] {
            let (mut cursor, mut pages) = (Vec::new(), Vec::new());
            loop {
                let operation = if scans {
                    Operation::Scan {
                        consistent: true,
                        limit: 0,
                        segment: 0,
                        segments: 1,
                        cursor: &cursor,
                    }
                } else {
                    Operation::Query {
                        consistent: true,
                        backward: false,
                        limit: 0,
                        partition: KeyPart::S("p"),
                        sort: SortCondition::All,
                        cursor: &cursor,
                    }
                };
                let answer = client.ask(table, operation).await.unwrap();
                let (_, page) = response::decode_page(&answer).unwrap();
                pages.push(page.items.len());
                cursor = page.cursor.to_vec();
                if cursor.is_empty() {
                    break;
                }
            }
            assert_eq!(pages, [3, 3, 1]);
        }
    });
}

#[test]
fn an_item_that_no_engine_stores_is_refused() {
    with_node(None, async |world| {
        let table = world.create("tab").await;
        let mut client = world.client().await;
        let json = swollen("a", 350_000);
        let item = archived(&json);
        let put = Operation::Put {
            return_old: false,
            item: &item,
        };
        let too_large = expect!["ValidationException: Item size has exceeded the maximum allowed size"];
        too_large.assert_eq(&client.ask(table, put).await.unwrap_err().to_string());
        let small = archived(r#"{"pk":{"S":"p"},"sk":{"S":"b"}}"#);
        let writes = vec![Write::Put(&small), Write::Put(&item)];
        let failure = client
            .ask(table, Operation::BatchWrite { writes })
            .await
            .unwrap_err();
        too_large.assert_eq(&failure.to_string());
        let body = format!(r#"{{"TableName":"tab","Item":{json}}}"#);
        too_large.assert_eq(&client.json("PutItem", &body).await.unwrap_err().to_string());
        let put = |item: &str| format!(r#"{{"PutRequest":{{"Item":{item}}}}}"#);
        let small = put(r#"{"pk":{"S":"p"},"sk":{"S":"b"}}"#);
        let body = format!(r#"{{"RequestItems":{{"tab":[{small},{}]}}}}"#, put(&json));
        let failure = client.json("BatchWriteItem", &body).await.unwrap_err();
        too_large.assert_eq(&failure.to_string());
        // What cannot be stored is found before anything is.
        let get = Operation::Get {
            consistent: true,
            key: key("p", "b"),
        };
        let answer = client.ask(table, get).await.unwrap();
        assert_eq!(response::decode_item(&answer).unwrap().1, None);
        // Nor by an update.
        let body = r#"{"TableName":"tab","Key":{"pk":{"S":"p"},"sk":{"S":"c"}},"UpdateExpression":"SET l=:l",
            "ExpressionAttributeValues":{":l":VALUE}}"#;
        let sets = vec![r#"{"SS":[""]}"#; 350_000].join(",");
        let body = body.replace("VALUE", &format!(r#"{{"L":[{sets}]}}"#));
        too_large.assert_eq(&client.json("UpdateItem", &body).await.unwrap_err().to_string());
    });
}

#[test]
fn a_failure_of_a_json_request_carries_the_error_as_over_http() {
    with_node(None, async |world| {
        let table = world.create("tab").await;
        let mut client = world.client().await;
        let item = archived(r#"{"pk":{"S":"p"},"sk":{"S":"a"},"n":{"N":"1"}}"#);
        let put = Operation::Put {
            return_old: false,
            item: &item,
        };
        client.ask(table, put).await.unwrap();
        let body = r#"{"TableName":"tab","Key":{"pk":{"S":"p"},"sk":{"S":"a"}},"ConditionExpression":"attribute_not_exists(pk)",
            "ReturnValuesOnConditionCheckFailure":"ALL_OLD"}"#;
        let failure = client.json("DeleteItem", body).await.unwrap_err();
        assert_eq!(failure.retry, Retry::Never);
        expect![[r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"The conditional request failed","Item":{"n":{"N":"1"},"pk":{"S":"p"},"sk":{"S":"a"}}}"#]]
            .assert_eq(&String::from_utf8(failure.json).unwrap());
        let get = Operation::Get {
            consistent: true,
            key: key("p", ""),
        };
        assert!(client.ask(table, get).await.unwrap_err().json.is_empty());
    });
}

#[test]
fn requests_are_logged_with_their_ids() {
    with_node(None, async |world| {
        let table = world.create("tab").await;
        let mut client = world.client().await;
        let get = || Operation::Get {
            consistent: true,
            key: key("p", "a"),
        };
        client.ask(table, get()).await.unwrap();
        client.ask(table + 1, get()).await.unwrap_err();
        let lines: Vec<String> = world
            .lines
            .try_iter()
            .filter(|line| line.contains("GetItem"))
            .collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        for (line, result) in lines.iter().zip(["OK", "ResourceNotFoundException"]) {
            for part in ["DEBUG", "request_id=1", "trace_id=abababab", result] {
                assert!(line.contains(part), "{part} in {line}");
            }
        }
    });
}

#[test]
fn a_batch_of_which_nothing_could_be_carried_out_fails_as_one_request() {
    with_node(None, async |world| {
        let table = world.create("tab").await;
        let mut client = world.client().await;
        world.stop_shards().await;
        let item = archived(r#"{"pk":{"S":"p"},"sk":{"S":"s"}}"#);
        let write = Operation::BatchWrite {
            writes: vec![Write::Put(&item), Write::Delete(key("q", "s"))],
        };
        let failure = client.ask(table, write).await.unwrap_err();
        assert_eq!((failure.status, failure.retry), (503, Retry::Later), "{failure}");
        let body = r#"{"RequestItems":{"tab":[{"DeleteRequest":{"Key":{"pk":{"S":"p"},"sk":{"S":"s"}}}}]}}"#;
        let failure = client.json("BatchWriteItem", body).await.unwrap_err();
        assert_eq!((failure.status, failure.retry), (503, Retry::Later), "{failure}");
    });
}

#[test]
fn operations_on_tables_travel_as_json() {
    with_node(None, async |world| {
        let table = world.create("tab").await;
        let mut client = world.client().await;
        let arn = r#""ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/tab""#;
        let tags = format!(r#"{{{arn},"Tags":[{{"Key":"cairn:expired-items","Value":"hidden"}}]}}"#);
        assert_eq!(client.json("TagResource", &tags).await.unwrap(), "");
        let listed = client.json("ListTagsOfResource", &format!("{{{arn}}}")).await;
        assert_eq!(
            listed.unwrap(),
            r#"{"Tags":[{"Key":"cairn:expired-items","Value":"hidden"}]}"#
        );
        let on = r#"{"TableName":"tab","TimeToLiveSpecification":{"AttributeName":"ttl","Enabled":true}}"#;
        client.json("UpdateTimeToLive", on).await.unwrap();
        let failure = client.json("UpdateTimeToLive", on).await.unwrap_err();
        assert_eq!(
            failure.to_string(),
            "ValidationException: TimeToLive is already enabled"
        );
        let failure = client
            .json("UpdateTable", r#"{"TableName":"tab"}"#)
            .await
            .unwrap_err();
        assert_eq!(
            (failure.name.as_str(), failure.retry),
            ("ValidationException", Retry::Never)
        );
        // What the table says counts for the typed operations, too.
        let now = world.handle.outside().unix_ms() / 1000;
        for (sort, ttl, seen) in [("old", now - 10, false), ("new", now + 1000, true)] {
            let item = archived(&format!(
                r#"{{"pk":{{"S":"p"}},"sk":{{"S":"{sort}"}},"ttl":{{"N":"{ttl}"}}}}"#
            ));
            let put = Operation::Put {
                return_old: false,
                item: &item,
            };
            client.ask(table, put).await.unwrap();
            let get = Operation::Get {
                consistent: true,
                key: key("p", sort),
            };
            let answer = client.ask(table, get).await.unwrap();
            assert_eq!(
                response::decode_item(&answer).unwrap().1.is_some(),
                seen,
                "{sort}"
            );
        }
    });
}
