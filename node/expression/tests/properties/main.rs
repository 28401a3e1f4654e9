//! Random expressions: printing and parsing agree, nothing panics, and what they do to random items is what a slow, obvious
//! interpreter of the test's own trees does.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod generator;
mod oracle;

use cairn_expression::{Condition, Parameter, Projection, Update};
use cairn_item::testing::{self, Random};
use cairn_item::{Item, ItemBytes, Value};

use generator::{Generator, Step};
use oracle::Oracle;

#[test]
fn conditions_are_what_the_oracle_says() {
    let (mut bound_count, mut true_count) = (0, 0);
    for seed in 0..6000 {
        let mut generator = Generator::new(seed);
        let tree = generator.tree(3);
        let mut text = String::new();
        generator.write_tree(&mut text, &tree, 0);
        let (names, values) = (generator.names(), generator.placeholders());
        let Ok(condition) = Condition::parse(Parameter::Filter, &text) else {
            panic!("{text}: {:?}", Condition::parse(Parameter::Filter, &text));
        };
        let printed = condition.to_string();
        let again = Condition::parse(Parameter::Filter, &printed).unwrap();
        assert_eq!(again, condition, "{text} / {printed}");
        assert_eq!(again.to_string(), printed);
        // Operands that are refused for their type are half of all; the rest must agree.
        let Ok(bound) = condition.bind(&names, &values) else {
            continue;
        };
        let other = again.bind(&names, &values).unwrap();
        bound_count += 1;
        for _ in 0..4 {
            let item = generator.item();
            let expected = Oracle {
                item: &item,
                values: &generator.values,
            }
            .truth(&tree);
            let bytes = ItemBytes::from_item(&item);
            assert_eq!(
                bound.matches(Some(bytes.view())),
                expected,
                "seed {seed}: {text} of {item:?}"
            );
            assert_eq!(other.matches(Some(bytes.view())), expected);
            true_count += usize::from(expected);
        }
    }
    assert!(
        bound_count > 2000 && true_count > 2000,
        "{bound_count} bound, {true_count} true"
    );
}

#[test]
fn updates_are_what_the_oracle_does() {
    let (mut applied, mut refused) = (0, 0);
    for seed in 0..30_000 {
        let mut generator = Generator::new(seed);
        let (text, changes) = generator.update();
        let (names, values) = (generator.names(), generator.placeholders());
        let update = Update::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let printed = update.to_string();
        let again = Update::parse(&printed).unwrap_or_else(|error| panic!("{text} / {printed}: {error}"));
        assert_eq!(again, update, "{text} / {printed}");
        let Ok(bound) = update.bind(&names, &values) else {
            continue;
        };
        let item = generator.item();
        let expected = Oracle {
            item: &item,
            values: &generator.values,
        }
        .update(&changes);
        let bytes = ItemBytes::from_item(&item);
        match (bound.apply(bytes.view()), expected) {
            (Ok(new), Some(expected)) => {
                assert_eq!(
                    new, expected,
                    "seed {seed}: {text} of {item:?} with {:?}",
                    generator.values
                );
                applied += 1;
            }
            (Err(_), None) => refused += 1,
            (found, expected) => panic!("seed {seed}: {text} of {item:?}: {found:?} but {expected:?}"),
        }
    }
    assert!(
        applied > 500 && refused > 500,
        "{applied} applied, {refused} refused"
    );
}

#[test]
fn projections_keep_what_their_paths_lead_to() {
    let mut projected = 0;
    for seed in 0..5000 {
        let mut generator = Generator::new(seed);
        let paths: Vec<Vec<Step>> = (0..=generator.random.below(4))
            .map(|_| generator.path())
            .collect();
        let mut text = String::new();
        for (position, path) in paths.iter().enumerate() {
            text.push_str(if position > 0 { " ,\n" } else { "" });
            generator.write_path(&mut text, path);
        }
        let names = generator.names();
        let projection = Projection::parse(&text).unwrap();
        assert_eq!(
            Projection::parse(&projection.to_string()).unwrap(),
            projection,
            "{text}"
        );
        let Ok(bound) = projection.bind(&names) else {
            continue;
        };
        let item = generator.item();
        let bytes = ItemBytes::from_item(&item);
        let found = bound.project(bytes.view());
        // Every path that leads somewhere leads to the same value, once indexes have closed up; and there is nothing else.
        let oracle = Oracle {
            item: &item,
            values: &[],
        };
        let mut leaves: Vec<Value> = paths.iter().filter_map(|path| oracle.path(path)).collect();
        let wanted = leaves.iter().map(Value::size).sum::<usize>();
        let kept: usize = found
            .iter()
            .map(|attribute| kept_size(&attribute.value, &mut leaves))
            .sum();
        assert_eq!(kept, wanted, "seed {seed}: {text} of {item:?} is {found:?}");
        projected += usize::from(kept > 0);
    }
    assert!(projected > 1000, "{projected}");
}

/// Size of the leaves in a projected value; each is taken out of `leaves`.
fn kept_size(value: &Value, leaves: &mut Vec<Value>) -> usize {
    if let Some(position) = leaves.iter().position(|leaf| leaf == value) {
        return leaves.swap_remove(position).size();
    }
    match value {
        Value::L(elements) => elements.iter().map(|element| kept_size(element, leaves)).sum(),
        Value::M(attributes) => attributes
            .iter()
            .map(|attribute| kept_size(&attribute.value, leaves))
            .sum(),
        _ => panic!("{value:?} was not asked for"),
    }
}

#[test]
fn no_text_makes_a_panic() {
    const WORDS: [&str; 40] = [
        "a",
        "b",
        "#a",
        "#b",
        "#f",
        ":v1",
        ":v12",
        ":v99",
        "(",
        ")",
        "((",
        "))",
        ",",
        ".",
        "[",
        "]",
        "[0]",
        "0",
        "12",
        "99999999999",
        "=",
        "<>",
        "<",
        ">=",
        "+",
        "-",
        "AND",
        "or",
        "NOT",
        "BETWEEN",
        "IN",
        "SET",
        "ADD",
        "DELETE",
        "REMOVE",
        "size(",
        "attribute_exists(",
        "if_not_exists(",
        "hash",
        "\u{e9}",
    ];
    let mut parsed = 0;
    for seed in 0..40_000 {
        let mut generator = Generator::new(seed % 50);
        let mut random = Random::new(seed);
        let text = match random.below(3) {
            0 => testing::text(&mut random, 60),
            1 => String::from_utf8_lossy(&testing::bytes(&mut random, 60)).into_owned(),
            _ => {
                let space = random.pick(&["", " "]);
                let count = random.below(12);
                (0..count)
                    .map(|_| random.pick(&WORDS))
                    .collect::<Vec<_>>()
                    .join(space)
            }
        };
        let (names, values) = (generator.names(), generator.placeholders());
        let item = generator.item();
        let bytes = ItemBytes::from_item(&item);
        if let Ok(condition) = Condition::parse(Parameter::Condition, &text) {
            parsed += 1;
            assert_eq!(
                Condition::parse(Parameter::Condition, &condition.to_string()).as_ref(),
                Ok(&condition)
            );
            if let Ok(bound) = condition.bind(&names, &values) {
                let _ = bound.matches(Some(bytes.view()));
            }
        }
        if let Ok(projection) = Projection::parse(&text) {
            parsed += 1;
            if let Ok(bound) = projection.bind(&names) {
                let _ = bound.project(bytes.view());
            }
        }
        if let Ok(update) = Update::parse(&text) {
            parsed += 1;
            assert_eq!(Update::parse(&update.to_string()).as_ref(), Ok(&update));
            if let Ok(bound) = update.bind(&names, &values) {
                let _ = bound.apply(bytes.view());
            }
        }
    }
    assert!(parsed > 500, "{parsed}");
}

/// As deep as 4 KB can be, on a thread with little stack.
#[test]
fn deep_nesting_needs_no_stack() {
    let texts = [
        "(".repeat(4096),
        format!("{}a", "NOT ".repeat(1000)),
        format!("{}a=:v1", "NOT ".repeat(1000)),
        format!("{}a=:v1{}", "(NOT ".repeat(600), ")".repeat(600)),
        format!("{}a{}=:v1", "size(".repeat(680), ")".repeat(680)),
        format!("SET a={}b{}", "if_not_exists(c,".repeat(240), ",:v1)".repeat(0)),
        format!("SET a={}b{}", "if_not_exists(c,".repeat(230), ")".repeat(230)),
        vec!["a=:v1"; 450].join(" OR "),
        vec!["a"; 2000].join("."),
        "[".repeat(4000),
    ];
    let work = move || {
        let generator = Generator::new(1);
        let (names, values) = (generator.names(), generator.placeholders());
        let bytes = ItemBytes::from_item(&Item::new());
        for text in &texts {
            if let Ok(condition) = Condition::parse(Parameter::Condition, text) {
                let printed = condition.to_string();
                assert!(
                    printed.len() > 4096
                        || Condition::parse(Parameter::Condition, &printed).unwrap() == condition
                );
                if let Ok(bound) = condition.bind(&names, &values) {
                    let _ = bound.matches(Some(bytes.view()));
                }
            }
            if let Ok(update) = Update::parse(text)
                && let Ok(bound) = update.bind(&names, &values)
            {
                let _ = (bound.request_bytes(), bound.apply(bytes.view()));
            }
            let _ = Projection::parse(text).map(|projection| projection.bind(&names).is_ok());
        }
    };
    let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(work);
    thread.unwrap().join().unwrap();
}
