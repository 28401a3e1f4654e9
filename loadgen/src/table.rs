//! The table: what it is made as, and whether one that is there is such a table.
//!
//! Both commands look at it before anything else. Items of a table of another kind would be refused one by one, or, worse,
//! stored in a form that its runs take for damage.

use std::io;
use std::time::Duration;

use cairn_runtime::Runtime;
use serde_json::{Value, json};

use crate::wire::Wire;

/// Pause between two looks at a table that is being created.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// The request that creates the table, `indexed` or not.
pub(crate) fn definition(table: &str, indexed: bool) -> Value {
    let key = |name: &str, role: &str| json!({"AttributeName": name, "KeyType": role});
    let attribute = |name: &str, kind: &str| json!({"AttributeName": name, "AttributeType": kind});
    let mut definition = json!({
        "TableName": table,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [key("p", "HASH")],
        "AttributeDefinitions": [attribute("p", "S")],
    });
    if indexed {
        let all = json!({"ProjectionType": "ALL"});
        definition["KeySchema"] = json!([key("p", "HASH"), key("s", "RANGE")]);
        definition["AttributeDefinitions"] = json!([
            attribute("p", "S"),
            attribute("s", "S"),
            attribute("g", "N"),
            attribute("o", "S")
        ]);
        // Every put moves an entry of the one, and replaces one of the other.
        definition["LocalSecondaryIndexes"] = json!([{
            "IndexName": "local", "KeySchema": [key("p", "HASH"), key("g", "RANGE")], "Projection": all
        }]);
        definition["GlobalSecondaryIndexes"] = json!([{
            "IndexName": "global", "KeySchema": [key("o", "HASH")], "Projection": all
        }]);
    }
    definition
}

/// Creates the table unless it is there, waits until it can be used, and sees that it is what `load` makes.
///
/// # Errors
/// `InvalidInput` when a table of this name has another key or other indexes; else why there is none.
pub(crate) async fn create<R: Runtime>(
    runtime: &R,
    connection: &R::Connection,
    wire: &mut Wire,
    (table, indexed): (&str, bool),
) -> io::Result<()> {
    let wanted = definition(table, indexed);
    match wire
        .call(connection, "CreateTable", &wanted.to_string(), runtime.unix_ms())
        .await?
    {
        Ok(_) => {}
        Err(name) if name == "ResourceInUseException" => {}
        Err(name) => return Err(io::Error::other(format!("CreateTable failed: {name}"))),
    }
    loop {
        // It may not be seen yet.
        if let Ok(found) = describe(runtime, connection, wire, table).await? {
            fits(&found, &wanted, indexed)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            if found["TableStatus"] == "ACTIVE" {
                return Ok(());
            }
        }
        runtime.sleep(LOOK_PAUSE).await;
    }
}

/// Sees that the table is there and what a workload is for.
///
/// # Errors
/// `InvalidInput` when there is none, or it has another key or other indexes; else why it cannot be described.
pub(crate) async fn check<R: Runtime>(
    runtime: &R,
    connection: &R::Connection,
    wire: &mut Wire,
    (table, indexed): (&str, bool),
) -> io::Result<()> {
    let unusable = |error: String| io::Error::new(io::ErrorKind::InvalidInput, error);
    match describe(runtime, connection, wire, table).await? {
        Ok(found) => fits(&found, &definition(table, indexed), indexed).map_err(unusable),
        Err(name) if name == "ResourceNotFoundException" => Err(unusable(format!(
            "there is no table {table}: make and fill it with `loadgen load` and the same --target, --table, --items and \
             --item-size"
        ))),
        Err(name) => Err(io::Error::other(format!(
            "DescribeTable of {table} failed: {name}"
        ))),
    }
}

/// The description of a table, or the error's name.
async fn describe<R: Runtime>(
    runtime: &R,
    connection: &R::Connection,
    wire: &mut Wire,
    table: &str,
) -> io::Result<Result<Value, String>> {
    let ask = json!({"TableName": table}).to_string();
    let answer = wire
        .call(connection, "DescribeTable", &ask, runtime.unix_ms())
        .await?;
    Ok(match answer {
        Ok(body) => {
            let mut body: Value = serde_json::from_slice(&body)?;
            Ok(body["Table"].take())
        }
        Err(name) => Err(name),
    })
}

/// Whether a table that was found has the keys of the one that is wanted, and its indexes.
fn fits(found: &Value, wanted: &Value, indexed: bool) -> Result<(), String> {
    let table = wanted["TableName"].as_str().unwrap_or_default();
    let (found, expected) = (layout(found), layout(wanted));
    if found == expected {
        return Ok(());
    }
    // Most often it is the other one of the two that `load` makes.
    if found == layout(&definition(table, !indexed)) {
        let (has, without, way) = match indexed {
            true => ("no indexes", "with --indexes", "another --table"),
            false => (
                "the indexes of `load --indexes`",
                "without --indexes",
                "--workload index, or another --table",
            ),
        };
        return Err(format!(
            "table {table} has {has}, and what was asked for is about one that was loaded {without}: give {way}"
        ));
    }
    Err(format!(
        "table {table} was not made by `loadgen load`: it has {found}, not {expected}; give another --table"
    ))
}

/// Keys of a table and of its indexes, in one form.
fn layout(described: &Value) -> String {
    let kinds = &described["AttributeDefinitions"];
    let kind_of = |name: &Value| {
        let kinds = kinds.as_array().into_iter().flatten();
        let mut named = kinds.filter(|kind| kind["AttributeName"] == *name);
        named
            .next()
            .map_or("?", |kind| kind["AttributeType"].as_str().unwrap_or("?"))
    };
    let keys = |schema: &Value| {
        let one = |key: &Value| {
            let name = &key["AttributeName"];
            format!("{} {}", name.as_str().unwrap_or("?"), kind_of(name))
        };
        let all: Vec<String> = schema.as_array().into_iter().flatten().map(one).collect();
        all.join(", ")
    };
    let mut layout = format!("the key ({})", keys(&described["KeySchema"]));
    for list in ["LocalSecondaryIndexes", "GlobalSecondaryIndexes"] {
        let of_index = |index: &Value| {
            let name = index["IndexName"].as_str().unwrap_or("?");
            format!(", index {name} ({})", keys(&index["KeySchema"]))
        };
        let mut indexes: Vec<String> = described[list]
            .as_array()
            .into_iter()
            .flatten()
            .map(of_index)
            .collect();
        indexes.sort();
        layout.extend(indexes);
    }
    layout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_another_kind_is_told_apart() {
        let (plain, indexed) = (definition("t", false), definition("t", true));
        assert_eq!(fits(&plain, &plain, false), Ok(()));
        assert_eq!(fits(&indexed, &indexed, true), Ok(()));
        let error = fits(&plain, &indexed, true).unwrap_err();
        assert_eq!(
            error,
            "table t has no indexes, and what was asked for is about one that was loaded with --indexes: give another --table"
        );
        let error = fits(&indexed, &plain, false).unwrap_err();
        assert!(
            error.contains("give --workload index, or another --table"),
            "{error}"
        );
        let mut other = plain.clone();
        other["AttributeDefinitions"][0]["AttributeType"] = "N".into();
        assert_eq!(
            fits(&other, &plain, false).unwrap_err(),
            "table t was not made by `loadgen load`: it has the key (p N), not the key (p S); give another --table"
        );
        let mut other = indexed.clone();
        other["GlobalSecondaryIndexes"][0]["IndexName"] = "elsewhere".into();
        assert!(fits(&other, &indexed, true).is_err());
    }
}
