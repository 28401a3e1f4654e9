//! Exclusive access across awaits. The guard carries the value itself, boxed, so it is `'static` and needs no
//! borrow; use a `RefCell` where no await lies between.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::semaphore::{Permit, Semaphore};

/// A value that one task at a time may hold, first in, first out. Cheap to clone; clones share the value.
pub struct Mutex<T> {
    /// `None` exactly while a guard exists.
    value: Rc<RefCell<Option<Box<T>>>>,
    turn: Semaphore,
}

impl<T> Mutex<T> {
    /// A free mutex.
    #[must_use]
    pub fn new(value: T) -> Mutex<T> {
        Mutex {
            value: Rc::new(RefCell::new(Some(Box::new(value)))),
            turn: Semaphore::new(1),
        }
    }

    /// Waits for the turn.
    pub async fn lock(&self) -> MutexGuard<T> {
        let permit = self.turn.acquire(1).await;
        self.guard(permit)
    }

    /// The value if it is free and nobody waits.
    #[must_use]
    pub fn try_lock(&self) -> Option<MutexGuard<T>> {
        self.turn.try_acquire(1).map(|permit| self.guard(permit))
    }

    fn guard(&self, permit: Permit) -> MutexGuard<T> {
        let value = self.value.borrow_mut().take();
        debug_assert!(value.is_some(), "the only permit means the value is at home");
        MutexGuard {
            value,
            home: Rc::clone(&self.value),
            _permit: permit,
        }
    }
}

impl<T> Clone for Mutex<T> {
    fn clone(&self) -> Mutex<T> {
        Mutex {
            value: Rc::clone(&self.value),
            turn: self.turn.clone(),
        }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Mutex")
    }
}

/// Exclusive access to the value until dropped.
pub struct MutexGuard<T> {
    value: Option<Box<T>>,
    home: Rc<RefCell<Option<Box<T>>>>,
    // After `drop` has put the value back.
    _permit: Permit,
}

impl<T> Deref for MutexGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("a guard has the value until dropped")
    }
}

impl<T> DerefMut for MutexGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("a guard has the value until dropped")
    }
}

impl<T> Drop for MutexGuard<T> {
    fn drop(&mut self) {
        *self.home.borrow_mut() = self.value.take();
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}
