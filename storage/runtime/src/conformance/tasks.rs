//! Tasks, time and randomness.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::{Queue, Runtime};

type Trace = Rc<RefCell<Vec<usize>>>;

/// Waits until `condition` holds, turn by turn.
pub(super) async fn until<R: Runtime>(runtime: &R, condition: impl Fn() -> bool) {
    while !condition() {
        runtime.sleep(Duration::from_millis(1)).await;
    }
}

/// Polls `future` once, as a task that loses interest does.
pub(super) async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

pub(super) async fn spawned_tasks_run_later_and_in_order<R: Runtime>(runtime: R, _: PathBuf) {
    for queue in [Queue::Foreground, Queue::Replication, Queue::Background] {
        let trace = Trace::default();
        for index in 0..100 {
            let trace = Rc::clone(&trace);
            runtime.spawn(queue, async move { trace.borrow_mut().push(index) });
        }
        assert!(trace.borrow().is_empty(), "spawn runs nothing inline");
        until(&runtime, || trace.borrow().len() == 100).await;
        assert!(
            trace.borrow().is_sorted(),
            "tasks of {queue:?} run first in, first out"
        );
    }
}

pub(super) async fn yielding_lets_every_other_task_run<R: Runtime>(runtime: R, _: PathBuf) {
    let trace = Trace::default();
    for task in 0..3 {
        let (trace, own) = (Rc::clone(&trace), runtime.clone());
        runtime.spawn(Queue::Foreground, async move {
            for _ in 0..4 {
                trace.borrow_mut().push(task);
                own.yield_now().await;
            }
        });
    }
    until(&runtime, || trace.borrow().len() == 12).await;
    assert_eq!(
        *trace.borrow(),
        [0, 1, 2].repeat(4),
        "each yield lets the others run once"
    );
}

pub(super) async fn queues_all_progress<R: Runtime>(runtime: R, _: PathBuf) {
    // Each busy task ends only when all have run: a queue that starved another would hang here.
    let counts: Rc<[Cell<u32>; 3]> = Rc::default();
    let enough = |counts: &[Cell<u32>; 3]| counts.iter().all(|count| count.get() >= 100);
    for (index, queue) in [Queue::Foreground, Queue::Replication, Queue::Background]
        .into_iter()
        .enumerate()
    {
        let (counts, own) = (Rc::clone(&counts), runtime.clone());
        runtime.spawn(queue, async move {
            while !enough(&counts) {
                counts[index].set(counts[index].get() + 1);
                own.yield_now().await;
            }
        });
    }
    until(&runtime, || enough(&counts)).await;
}

pub(super) async fn time_goes_forward<R: Runtime>(runtime: R, _: PathBuf) {
    let before = runtime.now();
    let pause = Duration::from_millis(3);
    runtime.sleep(pause).await;
    let after = runtime.now();
    assert!(after.since(before) >= pause, "a sleep is never short");
    assert!(runtime.unix_ms() > 0);
    runtime.sleep(Duration::ZERO).await;
    assert!(runtime.now() >= after);
}

pub(super) async fn timers_resolve_in_order_of_their_deadlines<R: Runtime>(runtime: R, _: PathBuf) {
    let trace = Trace::default();
    for milliseconds in [9, 3, 6, 0, 12] {
        let trace = Rc::clone(&trace);
        let sleep = runtime.sleep(Duration::from_millis(milliseconds as u64));
        runtime.spawn(Queue::Foreground, async move {
            sleep.await;
            trace.borrow_mut().push(milliseconds);
        });
    }
    until(&runtime, || trace.borrow().len() == 5).await;
    assert_eq!(*trace.borrow(), [0, 3, 6, 9, 12]);
}

pub(super) async fn equal_timers_resolve_first_in_first_out<R: Runtime>(runtime: R, _: PathBuf) {
    let trace = Trace::default();
    for index in 0..50 {
        let (trace, sleep) = (Rc::clone(&trace), runtime.sleep(Duration::from_millis(2)));
        runtime.spawn(Queue::Foreground, async move {
            sleep.await;
            trace.borrow_mut().push(index);
        });
    }
    until(&runtime, || trace.borrow().len() == 50).await;
    assert!(
        trace.borrow().is_sorted(),
        "timers of one deadline resolve in the order of their making"
    );
}

pub(super) async fn dropped_timers_are_forgotten<R: Runtime>(runtime: R, _: PathBuf) {
    for _ in 0..1000 {
        let waited = poll_once(runtime.sleep(Duration::from_secs(3600))).await;
        assert!(waited.is_none());
    }
    runtime.sleep(Duration::from_millis(1)).await;
}

pub(super) async fn randomness_differs<R: Runtime>(runtime: R, _: PathBuf) {
    assert_ne!(runtime.random_u64(), runtime.random_u64());
    let (mut first, mut second) = ([0; 32], [0; 32]);
    runtime.random_secret(&mut first);
    runtime.random_secret(&mut second);
    assert_ne!(first, second);
    runtime.random_secret(&mut []);
    assert!(runtime.shard().0 < runtime.shards());
}
