//! A bounded queue between tasks of one shard. Full means that pushers wait: backpressure, never growth.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use super::Closed;
use super::semaphore::RawSemaphore;

/// Why [`BoundedQueue::try_push`] gave the item back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError<T> {
    /// No room, or others wait for room.
    Full(T),
    /// The queue was closed.
    Closed(T),
}

/// First in, first out, at most `capacity` items. Any number of pushers and poppers. Cheap to clone.
pub struct BoundedQueue<T> {
    items: Rc<RefCell<VecDeque<T>>>,
    /// Free places.
    room: RawSemaphore,
    /// Items that no popper has been promised.
    filled: RawSemaphore,
    capacity: usize,
}

impl<T> BoundedQueue<T> {
    /// An empty queue for `capacity` items, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> BoundedQueue<T> {
        let capacity = capacity.max(1);
        BoundedQueue {
            items: Rc::default(),
            room: RawSemaphore::new(capacity),
            filled: RawSemaphore::new(0),
            capacity,
        }
    }

    /// Waits for room, then appends. Pushers are served in order.
    ///
    /// # Errors
    /// [`Closed`] when the queue is or becomes closed; the item is dropped.
    pub async fn push(&self, item: T) -> Result<(), Closed> {
        if self.room.is_closed() {
            return Err(Closed);
        }
        self.room.acquire(1).await?;
        if self.room.is_closed() {
            self.room.release(1);
            return Err(Closed);
        }
        self.append(item);
        Ok(())
    }

    /// Appends if there is room and nobody waits for it.
    ///
    /// # Errors
    /// Gives the item back.
    pub fn try_push(&self, item: T) -> Result<(), PushError<T>> {
        if self.room.is_closed() {
            return Err(PushError::Closed(item));
        }
        if !self.room.try_acquire(1) {
            return Err(PushError::Full(item));
        }
        self.append(item);
        Ok(())
    }

    fn append(&self, item: T) {
        self.items.borrow_mut().push_back(item);
        self.filled.release(1);
    }

    fn take(&self) -> T {
        let item = self
            .items
            .borrow_mut()
            .pop_front()
            .expect("a filled permit stands for an item");
        self.room.release(1);
        item
    }

    /// The oldest item; `None` once the queue is closed and empty.
    pub async fn pop(&self) -> Option<T> {
        self.filled.acquire(1).await.ok()?;
        Some(self.take())
    }

    /// The oldest item if there is one that no popper waits for.
    #[must_use]
    pub fn try_pop(&self) -> Option<T> {
        self.filled.try_acquire(1).then(|| self.take())
    }

    /// Waits for an item, then moves up to `items_max` into `batch`. Returns how many; zero once the queue is
    /// closed and empty.
    pub async fn pop_many(&self, batch: &mut Vec<T>, items_max: usize) -> usize {
        let Some(first) = self.pop().await else { return 0 };
        batch.push(first);
        let mut count = 1;
        while count < items_max {
            let Some(item) = self.try_pop() else { break };
            batch.push(item);
            count += 1;
        }
        count
    }

    /// Refuses further pushes; what is in the queue can still be popped.
    pub fn close(&self) {
        self.room.close();
        self.filled.close();
    }

    /// Whether [`BoundedQueue::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// Items in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.borrow().len()
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.borrow().is_empty()
    }

    /// Items it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl<T> Clone for BoundedQueue<T> {
    fn clone(&self) -> BoundedQueue<T> {
        BoundedQueue {
            items: Rc::clone(&self.items),
            room: self.room.clone(),
            filled: self.filled.clone(),
            capacity: self.capacity,
        }
    }
}

impl<T> fmt::Debug for BoundedQueue<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BoundedQueue({} of {})", self.len(), self.capacity)
    }
}
