//! Mailboxes: within one shard here; [`serve`] and [`ask`] are the two halves of the case across shards.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use super::tasks::{poll_once, until};
use crate::mailbox::{Closed, MailboxReceiver, MailboxSender, Refused, ReplySender, mailbox, reply};
use crate::{Queue, Runtime};

/// A question from one shard to another: the answer is its number plus one.
pub type Asked = (u64, ReplySender<u64>);

/// Answers until every asker is gone; gives the number of answers.
pub async fn serve(mut mailbox: MailboxReceiver<Asked>) -> u64 {
    let (mut batch, mut answered) = (Vec::new(), 0);
    while let Some(first) = mailbox.recv().await {
        batch.push(first);
        mailbox.drain(&mut batch);
        for (number, sender) in batch.drain(..) {
            sender.send(number + 1);
            answered += 1;
        }
    }
    answered
}

/// Asks `questions` questions from each of `askers` tasks at once, and checks the answers.
pub async fn ask<R: Runtime>(runtime: R, mailbox: MailboxSender<Asked>, askers: u64, questions: u64) {
    let ended = Rc::new(Cell::new(0));
    for asker in 0..askers {
        let (mailbox, ended) = (mailbox.clone(), Rc::clone(&ended));
        runtime.spawn(Queue::Foreground, async move {
            for question in 0..questions {
                let number = asker * questions + question;
                let (sender, answer) = reply();
                mailbox.send((number, sender)).await.unwrap();
                assert_eq!(answer.await, Ok(number + 1));
            }
            ended.set(ended.get() + 1);
        });
    }
    drop(mailbox);
    until(&runtime, || ended.get() == askers).await;
}

pub(super) async fn a_mailbox_keeps_order_and_bound<R: Runtime>(_: R, _: PathBuf) {
    let (sender, mut receiver) = mailbox(4);
    assert_eq!(sender.capacity(), 4);
    for message in 0..4 {
        sender.try_send(message).unwrap();
    }
    assert_eq!(sender.try_send(4), Err(Refused::Full(4)));
    assert_eq!(receiver.recv().await, Some(0));
    sender.try_send(4).unwrap();
    let mut rest = Vec::new();
    assert_eq!(receiver.drain(&mut rest), 4);
    assert_eq!(rest, [1, 2, 3, 4]);
    assert!(poll_once(receiver.recv()).await.is_none());
}

pub(super) async fn a_full_mailbox_makes_senders_wait<R: Runtime>(runtime: R, _: PathBuf) {
    let (sender, mut receiver) = mailbox(2);
    for task in 0..10 {
        let sender = sender.clone();
        runtime.spawn(Queue::Foreground, async move {
            for message in 0..20 {
                sender.send((task, message)).await.unwrap();
            }
        });
    }
    drop(sender);
    let mut next = [0; 10];
    while let Some((task, message)) = receiver.recv().await {
        let expected: &mut i32 = &mut next[task];
        assert_eq!(message, *expected, "messages of one sender keep their order");
        *expected += 1;
    }
    assert_eq!(next, [20; 10]);
}

pub(super) async fn a_dropped_sender_that_was_woken_passes_its_room_on<R: Runtime>(runtime: R, _: PathBuf) {
    let (sender, mut receiver) = mailbox(1);
    sender.try_send(0).unwrap();
    let mut first = Box::pin(sender.send(1));
    assert!(poll_once(&mut first).await.is_none());
    let second = sender.send(2);
    let sent = Rc::new(RefCell::new(None));
    let result = Rc::clone(&sent);
    runtime.spawn(Queue::Foreground, async move {
        let outcome = second.await;
        *result.borrow_mut() = Some(outcome);
    });
    runtime.yield_now().await;
    // The room goes to the first in line, which is dropped without using it.
    assert_eq!(receiver.recv().await, Some(0));
    drop(first);
    until(&runtime, || sent.borrow().is_some()).await;
    assert_eq!(*sent.borrow(), Some(Ok(())));
    assert_eq!(receiver.recv().await, Some(2));
}

pub(super) async fn a_closed_mailbox_is_noticed<R: Runtime>(runtime: R, _: PathBuf) {
    let (sender, receiver) = mailbox(1);
    let (asked, answer) = reply::<u64>();
    sender.try_send((7, asked)).unwrap();
    let (waiting, waited) = (sender.clone(), Rc::new(Cell::new(false)));
    let flag = Rc::clone(&waited);
    let (late, late_answer) = reply::<u64>();
    runtime.spawn(Queue::Foreground, async move {
        assert_eq!(waiting.send((8, late)).await, Err(Closed));
        flag.set(true);
    });
    runtime.yield_now().await;
    drop(receiver);
    assert_eq!(
        answer.await,
        Err(Closed),
        "a question that nobody will read is answered by its end"
    );
    until(&runtime, || waited.get()).await;
    assert_eq!(late_answer.await, Err(Closed));
    let (asked, _answer) = reply();
    assert!(matches!(
        sender.try_send((9, asked)),
        Err(Refused::Closed((9, _)))
    ));

    let (sender, mut receiver) = mailbox(2);
    sender.try_send(1).unwrap();
    drop(sender);
    assert_eq!(
        receiver.recv().await,
        Some(1),
        "what was sent before the last sender went is still there"
    );
    assert_eq!(receiver.recv().await, None);
}

pub(super) async fn replies_need_no_room<R: Runtime>(runtime: R, _: PathBuf) {
    // Two servers that ask each other through full mailboxes: it ends because answers never wait.
    let (to_left, left) = mailbox::<Asked>(1);
    let (to_right, right) = mailbox::<Asked>(1);
    let served = Rc::new(Cell::new(0));
    for mailbox in [left, right] {
        let served = Rc::clone(&served);
        runtime.spawn(Queue::Foreground, async move {
            let answered = serve(mailbox).await;
            served.set(served.get() + answered);
        });
    }
    let asked = Rc::new(Cell::new(0));
    for mailbox in [to_left, to_right] {
        let (own, asked) = (runtime.clone(), Rc::clone(&asked));
        runtime.spawn(Queue::Foreground, async move {
            ask(own, mailbox, 8, 25).await;
            asked.set(asked.get() + 1);
        });
    }
    until(&runtime, || asked.get() == 2 && served.get() == 400).await;
}
