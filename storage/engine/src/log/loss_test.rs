//! What recovery makes of batches that no mirror has: torn tails, and losses.

use std::time::Duration;

use super::log_test::{
    NODE, Replay, batches, control, destroy, open, payloads, restart, small, world, write, write_to,
};
use super::*;

/// The last acknowledged batch is destroyed on both mirrors. Without a marker it looks like a torn tail; with one it
/// is known to have been acknowledged.
#[test]
fn a_marker_turns_a_torn_tail_into_a_known_loss() {
    let sim = world(4);
    let process = open(&sim, 2, small()).expect("a first start");
    write_to(&sim, &process, 5, 1, b"kept").expect("healthy drives");
    let victim = write_to(&sim, &process, 6, 1, b"lost").expect("healthy drives");
    sim.run_for(Duration::from_millis(100));
    sim.crash(NODE);
    destroy(&sim, 0, victim.0);
    destroy(&sim, 1, victim.0);
    sim.restart(NODE);
    let process = open(&sim, 2, small()).expect("a loss is an outcome, not an error");
    assert_eq!(payloads(&process), [b"kept".to_vec()]);
    let known = vec![PartitionRange {
        partition: PartitionId(6),
        first: RaftIndex(1),
        last: RaftIndex(1),
    }];
    assert_eq!(
        process.recovery.lost,
        [Lost {
            first: victim,
            last: victim,
            known,
            complete: true
        }]
    );
}

#[test]
fn a_torn_tail_is_dropped_and_counted() {
    let sim = world(5);
    let process = open(&sim, 2, small()).expect("a first start");
    write(&sim, &process, b"kept").expect("healthy drives");
    let torn = write(&sim, &process, &[9; 3000]).expect("healthy drives");
    // As if the node had died while both mirrors were being written: the header is there, its end is not.
    sim.crash(NODE);
    for drive in 0..2 {
        let (name, offset, _) = batches(&sim, drive).remove(&torn.0).expect("the batch is there");
        control(&sim, drive).zero(&name, offset + 2048..offset + 4096);
    }
    sim.restart(NODE);
    let process = open(&sim, 2, small()).expect("a torn tail");
    assert_eq!(payloads(&process), [b"kept".to_vec()]);
    assert_eq!((process.recovery.dropped, process.recovery.lost.len()), (1, 0));
}

/// One mirror is left, and the last acknowledged batch cannot be read there: no later batch says that it was
/// acknowledged, but nothing says that it was not.
#[test]
fn an_unreadable_tail_is_a_loss_and_not_an_end() {
    let sim = world(20);
    let process = open(&sim, 2, small()).expect("a first start");
    control(&sim, 1).detach();
    // The first still goes to the file of both mirrors.
    write(&sim, &process, b"both").expect("one mirror");
    write(&sim, &process, b"kept").expect("one mirror");
    let victim = write(&sim, &process, &[9; 3000]).expect("one mirror");
    drop(process);
    sim.crash(NODE);
    let (name, offset, header) = batches(&sim, 0).remove(&victim.0).expect("there");
    let place = offset..offset + header.bytes() as u64;
    control(&sim, 0).set_unreadable(&name, place.clone(), true);
    sim.restart(NODE);
    let process = open(&sim, 2, small()).expect("a loss is an outcome");
    let lost = Lost {
        first: victim,
        last: victim,
        known: Vec::new(),
        complete: false,
    };
    assert_eq!(process.recovery.lost, std::slice::from_ref(&lost));
    assert_eq!(process.recovery.dropped, 0);
    let after = write_to(&sim, &process, 3, 1, b"after").expect("one mirror");
    assert_eq!(after, victim.next(), "its sequence is not given again");
    drop(process);
    restart(&sim);
    // What follows did not know what the lost batch held.
    let process = open(&sim, 2, small()).expect("a loss is an outcome");
    assert_eq!(process.recovery.lost, [lost]);
    assert_eq!(
        payloads(&process),
        [b"both".to_vec(), b"kept".to_vec(), b"after".to_vec()]
    );
    // It can be read again after all: nothing behind it suffers from that.
    drop(process);
    sim.crash(NODE);
    control(&sim, 0).set_unreadable(&name, place, false);
    sim.restart(NODE);
    let process = open(&sim, 2, small()).expect("whole");
    assert!(process.recovery.lost.is_empty(), "{:?}", process.recovery);
    assert_eq!(payloads(&process).len(), 4);
}

/// The same place on the other mirror is whole, and shows that there is no batch.
#[test]
fn an_unreadable_block_behind_the_tail_is_no_loss_while_a_mirror_can_be_read() {
    let sim = world(21);
    let process = open(&sim, 2, small()).expect("a first start");
    let last = write(&sim, &process, b"kept").expect("healthy drives");
    drop(process);
    sim.crash(NODE);
    let (name, offset, _) = batches(&sim, 0).remove(&last.0).expect("there");
    control(&sim, 0).set_unreadable(&name, offset + 4096..offset + 8192, true);
    sim.restart(NODE);
    let process = open(&sim, 2, small()).expect("a tail");
    assert!(process.recovery.lost.is_empty(), "{:?}", process.recovery);
    assert_eq!(write(&sim, &process, b"next"), Ok(last.next()));
}

/// The tail of a full file cannot be read, but the log went on in the next file.
#[test]
fn an_unreadable_end_of_a_file_is_no_loss_when_the_next_file_goes_on() {
    let sim = world(22);
    let process = open(&sim, 1, small()).expect("a first start");
    for value in 0..40_u8 {
        write(&sim, &process, &[value; 3000]).expect("a healthy drive");
    }
    drop(process);
    sim.crash(NODE);
    let found = batches(&sim, 0);
    let ends: Vec<_> = found
        .values()
        .zip(found.values().skip(1))
        .filter(|((name, _, _), (next, _, _))| name != next)
        .map(|((name, offset, header), _)| (name, offset + header.bytes() as u64))
        .collect();
    assert!(!ends.is_empty());
    for (name, end) in ends {
        control(&sim, 0).set_unreadable(name, end..end + 4096, true);
    }
    sim.restart(NODE);
    let process = open(&sim, 1, small()).expect("every batch is there");
    assert!(process.recovery.lost.is_empty(), "{:?}", process.recovery);
    assert_eq!(payloads(&process).len(), 40);
}

#[test]
fn lost_batches_in_the_middle_are_named_and_the_rest_is_replayed() {
    for victims in [vec![4], vec![4, 5, 6], vec![1], vec![2, 9]] {
        let sim = world(6);
        let process = open(&sim, 2, small()).expect("a first start");
        for value in 1..=12_u64 {
            write_to(&sim, &process, value, value * 10, &[value as u8]).expect("healthy drives");
        }
        sim.crash(NODE);
        for victim in &victims {
            destroy(&sim, 0, *victim);
            destroy(&sim, 1, *victim);
        }
        sim.restart(NODE);
        let process = open(&sim, 2, small()).expect("losses are outcomes");
        let kept: Vec<Vec<u8>> = (1..=12)
            .filter(|value| !victims.contains(value))
            .map(|value| vec![value as u8])
            .collect();
        assert_eq!(payloads(&process), kept);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for victim in &victims {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *victim => *last = *victim,
                _ => runs.push((*victim, *victim)),
            }
        }
        let range = |last: u64| PartitionRange {
            partition: PartitionId(last),
            first: RaftIndex(last * 10),
            last: RaftIndex(last * 10),
        };
        let expected: Vec<Lost> = runs
            .into_iter()
            .map(|(first, last)| Lost {
                first: LogSequence(first),
                last: LogSequence(last),
                known: vec![range(last)],
                complete: first == last,
            })
            .collect();
        assert_eq!(process.recovery.lost, expected, "{victims:?}");
        // The loss is met where it lies, before the records behind it.
        let at = process
            .replayed
            .iter()
            .position(|event| matches!(event, Replay::Lost(_)));
        assert_eq!(at, Some(victims[0] as usize - 1));
        // Sequences of lost batches are not given to others.
        assert_eq!(write(&sim, &process, b"after"), Ok(LogSequence(13)));
    }
}
