//! Tasks, run queues and the agenda of what happens at which moment of virtual time.
//!
//! One poll at a time:
//! 1. wakes since the last poll put their tasks at the end of their queue, in the order of the wakes;
//! 2. what the agenda holds for a moment that has come, happens;
//! 3. otherwise the seed picks one of the queues with something in it, and its first task is polled: within a
//!    queue first in, first out, between queues and shards any order;
//! 4. with nothing to poll, time jumps to the agenda's next moment.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use super::random::Random;
use crate::Queue;

pub(super) type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// A task's place and how often the place was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskId {
    pub(super) place: u32,
    generation: u32,
}

/// Tasks woken since the last poll. A waker must be `Send`, hence the lock; it is never contended.
pub(super) type Woken = Arc<Mutex<Vec<TaskId>>>;

struct TaskWaker {
    task: TaskId,
    queued: AtomicBool,
    woken: Woken,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.woken.lock().expect("a wake cannot panic").push(self.task);
        }
    }
}

struct Task {
    queue: usize,
    /// Taken out while it is polled.
    future: Option<TaskFuture>,
    flag: Arc<TaskWaker>,
    waker: Waker,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    task: Option<Task>,
}

struct RunQueue {
    node: usize,
    shard: usize,
    tasks: VecDeque<TaskId>,
    /// Whether `active` or `parked` names it.
    listed: bool,
}

/// What was picked to be polled.
pub(super) struct Picked {
    pub(super) id: TaskId,
    pub(super) node: usize,
    pub(super) shard: usize,
    pub(super) future: TaskFuture,
    pub(super) waker: Waker,
}

/// All tasks of all nodes.
pub(super) struct Executor {
    pub(super) random: Random,
    woken: Woken,
    slots: Vec<Slot>,
    free: Vec<u32>,
    queues: Vec<RunQueue>,
    active: Vec<usize>,
    /// Queues of paused nodes.
    parked: Vec<usize>,
    /// First queue and shards of each node.
    nodes: Vec<(usize, usize)>,
    paused: Vec<bool>,
    alive: usize,
}

impl Executor {
    pub(super) fn new(random: Random, woken: Woken) -> Executor {
        Executor {
            random,
            woken,
            slots: Vec::new(),
            free: Vec::new(),
            queues: Vec::new(),
            active: Vec::new(),
            parked: Vec::new(),
            nodes: Vec::new(),
            paused: Vec::new(),
            alive: 0,
        }
    }

    pub(super) fn add_node(&mut self, shards: usize) {
        let node = self.nodes.len();
        self.nodes.push((self.queues.len(), shards));
        self.paused.push(false);
        for shard in 0..shards {
            for _ in 0..3 {
                self.queues.push(RunQueue {
                    node,
                    shard,
                    tasks: VecDeque::new(),
                    listed: false,
                });
            }
        }
    }

    /// Tasks that have not ended.
    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    pub(super) fn spawn(&mut self, node: usize, shard: usize, queue: Queue, future: TaskFuture) -> TaskId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 tasks at a time")
        });
        let slot = &mut self.slots[place as usize];
        let id = TaskId {
            place,
            generation: slot.generation,
        };
        let flag = Arc::new(TaskWaker {
            task: id,
            queued: AtomicBool::new(true),
            woken: Arc::clone(&self.woken),
        });
        let waker = Waker::from(Arc::clone(&flag));
        let queue = self.nodes[node].0 + shard * 3 + queue as usize;
        slot.task = Some(Task {
            queue,
            future: Some(future),
            flag,
            waker,
        });
        self.alive += 1;
        self.enqueue(id);
        id
    }

    fn enqueue(&mut self, id: TaskId) {
        let slot = &self.slots[id.place as usize];
        let Some(task) = &slot.task else { return };
        if slot.generation != id.generation {
            return;
        }
        let place = task.queue;
        let queue = &mut self.queues[place];
        queue.tasks.push_back(id);
        if !queue.listed {
            queue.listed = true;
            if self.paused[queue.node] {
                self.parked.push(place)
            } else {
                self.active.push(place)
            }
        }
    }

    pub(super) fn enqueue_woken(&mut self, scratch: &mut Vec<TaskId>) {
        {
            let mut woken = self.woken.lock().expect("a wake cannot panic");
            if woken.is_empty() {
                return;
            }
            std::mem::swap(&mut *woken, scratch);
        }
        scratch.drain(..).for_each(|id| self.enqueue(id));
    }

    /// The next task to poll, taken out of its slot.
    pub(super) fn pick(&mut self) -> Option<Picked> {
        while !self.active.is_empty() {
            let choice = if self.active.len() == 1 {
                0
            } else {
                self.random.index(self.active.len())
            };
            let place = self.active[choice];
            let queue = &mut self.queues[place];
            let (node, shard) = (queue.node, queue.shard);
            if self.paused[node] {
                self.active.swap_remove(choice);
                self.parked.push(place);
                continue;
            }
            let id = queue.tasks.pop_front();
            if queue.tasks.is_empty() {
                queue.listed = false;
                self.active.swap_remove(choice);
            }
            let Some(id) = id else { continue };
            let slot = &mut self.slots[id.place as usize];
            if slot.generation != id.generation {
                continue;
            }
            let Some(task) = &mut slot.task else { continue };
            task.flag.queued.store(false, Ordering::Relaxed);
            let Some(future) = task.future.take() else {
                continue;
            };
            return Some(Picked {
                id,
                node,
                shard,
                future,
                waker: task.waker.clone(),
            });
        }
        None
    }

    /// Takes a polled task back. Gives the future to be dropped when it has ended or its node is gone.
    pub(super) fn put_back(&mut self, id: TaskId, future: TaskFuture, ended: bool) -> Option<TaskFuture> {
        let slot = &mut self.slots[id.place as usize];
        if slot.generation != id.generation {
            return Some(future);
        }
        if ended {
            slot.task = None;
            slot.generation += 1;
            self.free.push(id.place);
            self.alive -= 1;
            return Some(future);
        }
        slot.task
            .as_mut()
            .expect("only a crash or its end takes a task, and both change the generation")
            .future = Some(future);
        None
    }

    /// All tasks of a node, to be dropped by the caller while nothing is borrowed.
    pub(super) fn take_node(&mut self, node: usize) -> Vec<TaskFuture> {
        let (first, shards) = self.nodes[node];
        let queues = first..first + shards * 3;
        let mut futures = Vec::new();
        for (place, slot) in self.slots.iter_mut().enumerate() {
            if !slot
                .task
                .as_ref()
                .is_some_and(|task| queues.contains(&task.queue))
            {
                continue;
            }
            let task = slot.task.take().expect("checked above");
            futures.extend(task.future);
            slot.generation += 1;
            self.free.push(u32::try_from(place).expect("places are u32"));
            self.alive -= 1;
        }
        for queue in queues {
            self.queues[queue].tasks.clear();
        }
        futures
    }

    pub(super) fn pause(&mut self, node: usize, paused: bool) {
        self.paused[node] = paused;
        if !paused {
            let queues = &self.queues;
            let back: Vec<usize> = self
                .parked
                .extract_if(.., |place| queues[*place].node == node)
                .collect();
            self.active.extend(back);
        }
    }
}

/// What happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A sleep ends.
    Timer { place: u32, generation: u32 },
    /// A drive operation completes.
    Operation { place: u32, id: u64 },
    /// Segments of one direction of a connection arrive.
    Deliver { place: u32, id: u64, from: u8 },
    /// A side of a connection learns that it is broken.
    Reset { place: u32, id: u64, side: u8 },
    /// A connection held up by a partition gives up.
    Expire { place: u32, id: u64 },
    /// A paused node goes on.
    Resume { node: usize },
}

#[derive(Default)]
struct Timer {
    generation: u32,
    waker: Option<Waker>,
}

/// Events by moment, then by the order in which they were added.
#[derive(Default)]
pub(super) struct Agenda {
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    timers: Vec<Timer>,
    free: Vec<u32>,
}

impl Agenda {
    pub(super) fn add(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// A timer; answers its place and generation.
    pub(super) fn add_timer(&mut self, at: u64, waker: Waker) -> (u32, u32) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.timers.push(Timer::default());
            u32::try_from(self.timers.len() - 1).expect("fewer than 2^32 timers at a time")
        });
        let timer = &mut self.timers[place as usize];
        timer.waker = Some(waker);
        let generation = timer.generation;
        self.add(at, Event::Timer { place, generation });
        (place, generation)
    }

    pub(super) fn set_timer_waker(&mut self, (place, generation): (u32, u32), waker: &Waker) {
        let timer = &mut self.timers[place as usize];
        if timer.generation == generation && !timer.waker.as_ref().is_some_and(|held| held.will_wake(waker)) {
            timer.waker = Some(waker.clone());
        }
    }

    /// Ends a timer early or because its moment has come; `None` when it ended before.
    pub(super) fn take_timer(&mut self, (place, generation): (u32, u32)) -> Option<Waker> {
        let timer = &mut self.timers[place as usize];
        if timer.generation != generation {
            return None;
        }
        timer.generation += 1;
        self.free.push(place);
        timer.waker.take()
    }

    /// The next event if its moment is not after `until`. Timers that were dropped are passed over, so that
    /// time never jumps to one of them.
    pub(super) fn next(&mut self, until: u64) -> Option<(u64, Event)> {
        while let Some(Reverse((at, _, event))) = self.events.peek().copied() {
            if at > until {
                return None;
            }
            self.events.pop();
            if let Event::Timer { place, generation } = event
                && self.timers[place as usize].generation != generation
            {
                continue;
            }
            return Some((at, event));
        }
        None
    }
}
