//! Each primitive with polls made by hand, above all what happens when a future is dropped in between.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;

fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn ready<F: Future>(future: F) -> F::Output {
    match poll(&mut Box::pin(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits"),
    }
}

#[test]
fn oneshot_passes_a_value_or_says_closed() {
    let (sender, receiver) = oneshot();
    sender.send(7).unwrap();
    assert_eq!(ready(receiver), Ok(7));

    let (sender, receiver) = oneshot::<u8>();
    let mut receiver = Box::pin(receiver);
    assert!(poll(&mut receiver).is_pending());
    drop(sender);
    assert_eq!(poll(&mut receiver), Poll::Ready(Err(Closed)));

    let (sender, receiver) = oneshot();
    drop(receiver);
    assert!(sender.is_closed());
    assert_eq!(sender.send(7), Err(7));
}

#[test]
fn semaphore_is_fair_and_passes_on_what_a_dropped_waiter_was_granted() {
    let semaphore = Semaphore::new(2);
    let both = ready(semaphore.acquire(2));
    let mut large = Box::pin(semaphore.acquire(2));
    let mut small = Box::pin(semaphore.acquire(1));
    assert!(poll(&mut large).is_pending());
    assert!(poll(&mut small).is_pending());
    drop(both);
    // `large` was granted both; a newcomer and `small` must wait behind it.
    assert!(semaphore.try_acquire(1).is_none());
    assert!(poll(&mut small).is_pending());
    drop(large);
    let Poll::Ready(permit) = poll(&mut small) else {
        panic!("the permits were not passed on")
    };
    assert_eq!(semaphore.available(), 1);
    drop(permit);
    assert_eq!(semaphore.available(), 2);

    // A large waiter in front of a small one gives way when dropped ungranted.
    let _one = ready(semaphore.acquire(1));
    let mut large = Box::pin(semaphore.acquire(2));
    let mut small = Box::pin(semaphore.acquire(1));
    assert!(poll(&mut large).is_pending());
    assert!(poll(&mut small).is_pending());
    drop(large);
    assert!(poll(&mut small).is_ready());
}

#[test]
fn mutex_hands_the_value_on_in_order() {
    let mutex = Mutex::new(1);
    let mut guard = ready(mutex.lock());
    let mut second = Box::pin(mutex.lock());
    let mut third = Box::pin(mutex.lock());
    assert!(poll(&mut second).is_pending());
    assert!(poll(&mut third).is_pending());
    *guard += 1;
    drop(guard);
    assert!(poll(&mut third).is_pending());
    drop(second);
    let Poll::Ready(guard) = poll(&mut third) else {
        panic!("the turn was lost with a dropped waiter")
    };
    assert_eq!(*guard, 2);
    assert!(mutex.try_lock().is_none());
}

#[test]
fn notify_misses_nothing_and_loses_nothing() {
    let notify = Notify::new();
    notify.notify_one();
    ready(notify.notified());

    let mut before = Box::pin(notify.notified());
    notify.notify_all();
    assert!(poll(&mut before).is_ready());
    assert!(poll(&mut Box::pin(notify.notified())).is_pending());

    let mut first = Box::pin(notify.notified());
    let mut second = Box::pin(notify.notified());
    assert!(poll(&mut first).is_pending());
    assert!(poll(&mut second).is_pending());
    notify.notify_one();
    drop(first);
    assert!(poll(&mut second).is_ready());

    // Granted, then everybody is notified: the grant is used up, not passed on.
    let mut first = Box::pin(notify.notified());
    assert!(poll(&mut first).is_pending());
    notify.notify_one();
    notify.notify_all();
    drop(first);
    assert!(poll(&mut Box::pin(notify.notified())).is_pending());
}

#[test]
fn queue_bounds_pushers_and_survives_dropped_poppers() {
    let queue = BoundedQueue::new(2);
    queue.try_push(1).unwrap();
    ready(queue.push(2)).unwrap();
    assert_eq!(queue.try_push(3), Err(PushError::Full(3)));
    let mut push = Box::pin(queue.push(3));
    assert!(poll(&mut push).is_pending());
    assert_eq!(ready(queue.pop()), Some(1));
    // The free place belongs to the pusher that waits.
    assert_eq!(queue.try_push(4), Err(PushError::Full(4)));
    assert_eq!(poll(&mut push), Poll::Ready(Ok(())));
    let mut batch = Vec::new();
    assert_eq!(ready(queue.pop_many(&mut batch, 10)), 2);
    assert_eq!(batch, [2, 3]);

    let mut first = Box::pin(queue.pop());
    let mut second = Box::pin(queue.pop());
    assert!(poll(&mut first).is_pending());
    assert!(poll(&mut second).is_pending());
    queue.try_push(5).unwrap();
    drop(first);
    assert_eq!(poll(&mut second), Poll::Ready(Some(5)));

    queue.try_push(6).unwrap();
    queue.close();
    assert_eq!(queue.try_push(7), Err(PushError::Closed(7)));
    assert_eq!(ready(queue.push(7)), Err(Closed));
    assert_eq!(ready(queue.pop()), Some(6));
    assert_eq!(ready(queue.pop()), None);
}

#[test]
fn gate_waits_for_those_inside() {
    let gate = Gate::new();
    let pass = gate.enter().unwrap();
    let mut close = Box::pin(gate.close());
    assert!(gate.enter().is_err());
    assert!(poll(&mut close).is_pending());
    drop(pass);
    assert!(poll(&mut close).is_ready());
    ready(gate.closed());
}

#[test]
fn progress_wakes_those_it_reached() {
    let progress = Progress::new(3);
    ready(progress.wait(3)).unwrap();
    let mut five = Box::pin(progress.wait(5));
    let mut six = Box::pin(progress.wait(6));
    let dropped = progress.wait(5);
    assert!(poll(&mut five).is_pending());
    assert!(poll(&mut six).is_pending());
    drop(dropped);
    progress.advance(5);
    assert_eq!(poll(&mut five), Poll::Ready(Ok(())));
    assert!(poll(&mut six).is_pending());
    progress.close();
    assert_eq!(poll(&mut six), Poll::Ready(Err(Closed)));
    assert_eq!(ready(progress.wait(4)), Ok(()));
}
