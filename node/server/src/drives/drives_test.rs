use super::*;

fn example() -> Drives {
    Drives {
        node: "7".to_owned(),
        epoch: 5,
        mirrors: 2,
        scrub_requested: 1,
        drives: vec![
            DriveLine {
                place: 0,
                path: "/mnt/a".to_owned(),
                state: "in sync".to_owned(),
                total_bytes: 4 << 30,
                free_bytes: 3 << 30,
                reads: 10,
                read_us: 120,
                ..DriveLine::default()
            },
            DriveLine {
                place: 1,
                path: "/mnt/\"b\"".to_owned(),
                state: "OUT OF SYNC".to_owned(),
                why: "writing the log: gone".to_owned(),
                repairs: 3,
                ..DriveLine::default()
            },
            DriveLine {
                place: 2,
                state: "removed".to_owned(),
                ..DriveLine::default()
            },
        ],
        logs: vec![
            LogLine {
                log: 0,
                verified_ms: 1_700_000_000_000,
                damaged: 3,
                ..LogLine::default()
            },
            LogLine {
                log: 1,
                verified_ms: 1_700_000_360_000,
                running: true,
                bytes_done: 1 << 20,
                bytes_total: 2 << 20,
                ..LogLine::default()
            },
        ],
        warnings: vec!["they share a device".to_owned()],
        guarantee: 1,
        operation: Some(OperationLine {
            number: 1,
            what: "rebuilding /mnt/b".to_owned(),
            state: "failed".to_owned(),
            said: "it is full".to_owned(),
            ..OperationLine::default()
        }),
    }
}

#[test]
fn what_is_written_is_read() {
    for drives in [example(), Drives::default()] {
        assert_eq!(Drives::from_json(drives.to_json().as_bytes()), Ok(drives));
    }
    // A later node may say more, an earlier one less.
    let other = br#"{"epoch": 3, "moons": [{"of": 1}]}"#;
    assert_eq!(Drives::from_json(other).map(|drives| drives.epoch), Ok(3));
    assert!(Drives::from_json(b"<html>").is_err());
}

#[test]
fn an_operator_sees_states_and_the_age_of_the_oldest_verification() {
    let text = example().to_text(1_700_000_000_000 + 2 * 3_600_000);
    let expected = "\
node 7, epoch 5, 2 copies of every byte
  0 /mnt/a: in sync, 1GiB of 4GiB used, a read takes 120 us, 10 reads, 0 failed, 0 did not verify, 0 repaired
  1 /mnt/\"b\": OUT OF SYNC: writing the log: gone, 0 reads, 0 failed, 0 did not verify, 3 repaired
  2 (directory unknown): removed, 0 reads, 0 failed, 0 did not verify, 0 repaired
scrub: everything older than 20231114T221320Z (2 h ago) has been verified
scrub: a pass is under way, 1MiB of 2MiB
scrub: 3 places did not verify since the start, 0 of them on no mirror
rebuilding /mnt/b: failed: it is full
warning: some files have 1 of 2 copies
warning: they share a device
";
    assert_eq!(text, expected);
    let fresh = Drives {
        logs: vec![LogLine::default()],
        ..example()
    };
    assert!(fresh.to_text(0).contains("not all has been verified yet"));
}
