//! Random statements: what is printed is parsed to the same, a plan holds every item that the clause is true of, and no
//! text makes the parser panic.

use cairn_expression::partiql::{Plan, Statement};
use cairn_expression::{KeyAttribute, Names};
use cairn_item::testing::Random;
use cairn_item::{Attribute, Item, ItemBytes, KeyCondition, KeyType, KeyValue, Number, Value};

struct Generator(Random);

impl Generator {
    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    fn one_of<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let place = self.below(of.len());
        of[place]
    }

    fn path(&mut self) -> String {
        let mut path = self.one_of(&["pk", "sk", "a", "\"b\"\"\"", "c"]).to_owned();
        while self.below(4) == 0 {
            path.push_str(self.one_of(&[".d", "[0]", "['e f']", ".\"select\""]));
        }
        path
    }

    fn literal(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 => self.one_of(&["'x'", "''", "'it''s'"]).to_owned(),
            1 => self.one_of(&["1", "-2.5", ".5", "+1e3"]).to_owned(),
            2 => self.one_of(&["TRUE", "false", "Null"]).to_owned(),
            3 => self.one_of(&["<<1, 2>>", "<<'p'>>"]).to_owned(),
            4 => "?".to_owned(),
            5 => format!("[{}, 3]", self.constant(depth - 1)),
            6 => format!("{{'k': {}}}", self.constant(depth - 1)),
            _ => "[]".to_owned(),
        }
    }

    fn constant(&mut self, depth: usize) -> String {
        loop {
            let literal = self.literal(depth);
            if literal != "?" {
                return literal;
            }
        }
    }

    fn operand(&mut self) -> String {
        match self.below(4) {
            0 => self.path(),
            1 => format!("size({})", self.path()),
            _ => self.literal(2),
        }
    }

    fn condition(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 7 } else { 11 }) {
            0 => format!(
                "{} IS {}",
                self.path(),
                self.one_of(&["MISSING", "NOT MISSING", "NULL", "NOT LIST"])
            ),
            1 => format!("{} IN [{}, {}]", self.operand(), self.operand(), self.operand()),
            2 => format!(
                "{} NOT BETWEEN {} AND {}",
                self.path(),
                self.operand(),
                self.operand()
            ),
            3 => format!(
                "{}({}, {})",
                self.one_of(&["begins_with", "CONTAINS"]),
                self.path(),
                self.literal(0)
            ),
            4 => format!(
                "attribute_exists({}) = {}",
                self.path(),
                self.one_of(&["true", "false"])
            ),
            5 | 6 => {
                let operator = self.one_of(&["=", "<>", "!=", "<", "<=", ">", ">="]);
                format!("{} {operator} {}", self.operand(), self.operand())
            }
            7 => format!("NOT {}", self.condition(depth - 1)),
            8 => format!("({})", self.condition(depth - 1)),
            _ => format!(
                "{} {} {}",
                self.condition(depth - 1),
                self.one_of(&["AND", "OR"]),
                self.condition(depth - 1)
            ),
        }
    }

    fn set(&mut self) -> String {
        let path = self.path();
        match self.below(5) {
            0 => format!(" REMOVE {path}"),
            1 => format!(" SET {path} = {} + {}", self.path(), self.literal(1)),
            2 => format!(
                " SET {path} = list_append(if_not_exists({}, []), {})",
                self.path(),
                self.path()
            ),
            3 => format!(" SET {path} = set_add({path}, <<1>>)"),
            _ => format!(" SET {path} = {}", self.literal(2)),
        }
    }

    fn statement(&mut self) -> String {
        let clause = if self.below(5) > 0 {
            format!(" WHERE {}", self.condition(3))
        } else {
            String::new()
        };
        match self.below(5) {
            0 => format!("DELETE FROM \"T\"{clause}"),
            1 => format!(
                "INSERT INTO T VALUE {{'pk': {}, 'a': {}}}",
                self.literal(0),
                self.literal(2)
            ),
            2 => format!(
                "UPDATE T{}{}{clause} RETURNING {} {} *",
                self.set(),
                self.set(),
                self.one_of(&["ALL", "modified"]),
                self.one_of(&["OLD", "NEW"])
            ),
            3 => format!("FROM T{clause}{}{}", self.set(), self.set()),
            _ => {
                let order = self.one_of(&["", " ORDER BY pk", " ORDER BY pk DESC, sk"]);
                format!(
                    "SELECT {} FROM T.\"i\"{clause}{order}",
                    self.one_of(&["*", "a", "a.b, c[1]"])
                )
            }
        }
    }
}

#[test]
fn what_is_printed_comes_back() {
    let mut parsed = 0;
    for seed in 0..6000 {
        let text = Generator(Random::new(seed)).statement();
        let Ok(statement) = Statement::parse(&text) else {
            continue;
        };
        parsed += 1;
        let printed = statement.to_string();
        let again = Statement::parse(&printed).unwrap_or_else(|error| panic!("{text} / {printed}: {error}"));
        assert_eq!(again, statement, "{text} / {printed}");
        assert_eq!(again.to_string(), printed);
    }
    assert!(parsed > 4000, "{parsed} parsed");
}

#[test]
fn no_text_makes_it_panic() {
    let pieces = [
        "SELECT ", "FROM ", "WHERE ", "(", ")", "[", "]", "{", "}", "<<", ">>", "'", "\"", "?", "a", ".",
        ",", "1", "-", "NOT ", " IN ", " IS ", "=", "ä", "/*", "--", "*", " AND ", ":", "`", "size(", "SET ",
        "NULL",
    ];
    for seed in 0..20_000 {
        let mut generator = Generator(Random::new(seed));
        let mut text = generator.statement();
        for _ in 0..=generator.below(4) {
            let at = generator.below(text.len() + 1);
            let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            if generator.below(2) == 0 {
                text.insert_str(at, generator.one_of(&pieces));
            } else {
                text.truncate(at);
            }
        }
        if let Ok(statement) = Statement::parse(&text) {
            let count = text.matches('?').count();
            let _ = statement.bind(vec![Value::Null; count]);
            assert_eq!(
                Statement::parse(&statement.to_string()).as_ref(),
                Ok(&statement),
                "{text}"
            );
        }
    }
}

/// A plan holds all that the clause is true of, and nothing twice.
#[test]
fn plans_leave_nothing_out() {
    let partition = KeyAttribute {
        name: "pk",
        kind: KeyType::N,
    };
    let sort = KeyAttribute {
        name: "sk",
        kind: KeyType::N,
    };
    let (mut keyed, mut found) = (0, 0);
    for seed in 0..20_000 {
        let mut generator = Generator(Random::new(seed));
        let clause = key_clause(&mut generator, 3);
        let statement = Statement::parse(&format!("SELECT * FROM T WHERE {clause}")).unwrap();
        let Ok(values) = statement.bind(Vec::new()) else {
            continue;
        };
        let Ok(Plan::Reads(reads, _)) = statement.plan(&values, partition, Some(sort)) else {
            continue;
        };
        keyed += 1;
        let names = Names::none();
        let condition = statement.condition().unwrap().bind(&names, &values).unwrap();
        for (pk, sk) in (0..4).flat_map(|pk| (0..4).map(move |sk| (pk, sk))) {
            let (pk, sk) = (Number::from(pk), Number::from(sk));
            let attribute = |name: &str, value| Attribute {
                name: name.to_owned(),
                value: Value::N(value),
            };
            let item = Item::from_attributes(vec![attribute("pk", pk), attribute("sk", sk)]);
            let holding = reads
                .iter()
                .filter(|read| read.partition == KeyValue::N(pk) && holds(&read.condition, &KeyValue::N(sk)))
                .count();
            assert!(holding <= 1, "{clause} reads {pk} {sk} twice");
            if condition.matches(Some(ItemBytes::from_item(&item).view())) {
                assert_eq!(holding, 1, "{clause} leaves out {pk} {sk}");
                found += 1;
            }
        }
    }
    assert!(keyed > 2000 && found > 2000, "{keyed} by key, {found} items");
}

fn key_clause(generator: &mut Generator, depth: usize) -> String {
    if depth > 0 && generator.below(5) > 1 {
        let (left, right) = (key_clause(generator, depth - 1), key_clause(generator, depth - 1));
        return match generator.below(6) {
            0 => format!("NOT ({left} OR {right})"),
            1 | 2 => format!("({left} OR {right})"),
            _ => format!("({left} AND {right})"),
        };
    }
    let numbers = ["0", "1", "2", "3"];
    let (first, second) = (generator.one_of(&numbers), generator.one_of(&numbers));
    match generator.below(8) {
        0..=2 => format!("pk = {first}"),
        3 => format!("pk IN [{first}, {second}]"),
        4 => format!("{first} < sk"),
        5 => format!("sk BETWEEN {first} AND {second}"),
        6 => format!("sk {} {first}", generator.one_of(&["=", "<>", "<=", ">"])),
        _ => format!("sk IN [{first}, {second}]"),
    }
}

fn holds(condition: &KeyCondition, key: &KeyValue) -> bool {
    match condition {
        KeyCondition::All => true,
        KeyCondition::Equal(value) => key == value,
        KeyCondition::Less(value) => key < value,
        KeyCondition::LessOrEqual(value) => key <= value,
        KeyCondition::Greater(value) => key > value,
        KeyCondition::GreaterOrEqual(value) => key >= value,
        KeyCondition::Between(lower, upper) => key >= lower && key <= upper,
        KeyCondition::BeginsWith(_) => unreachable!("not of numbers"),
    }
}
