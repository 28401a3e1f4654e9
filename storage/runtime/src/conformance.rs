//! The suite that every implementation of the seam passes: what [`crate::seam`] promises, case by case.
//!
//! A case gets a runtime and a directory of its own that does not exist yet, and panics when a promise is broken.
//! Cases use nothing but the seam, so they run in the simulator as they run on a real core. What the seam cannot
//! express (a peer that closes one direction, other threads, a full device) is in the tests of each implementation.
//! [`mailboxes`] wants two shards.
#![allow(clippy::unwrap_used, reason = "a failing case panics, as a test does")]

mod drives;
mod mailboxes;
mod network;
mod tasks;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use crate::Runtime;

pub use mailboxes::{Asked, ask, serve};

/// A case's future.
pub type Running = Pin<Box<dyn Future<Output = ()>>>;

/// One case of the suite.
pub struct Case<R> {
    /// Unique, in words joined by `_`.
    pub name: &'static str,
    start: fn(R, PathBuf) -> Running,
}

impl<R: Runtime> Case<R> {
    /// Runs the case; it panics when the implementation breaks a promise. `directory` does not exist yet.
    #[must_use = "a case runs when it is awaited"]
    pub fn run(&self, runtime: R, directory: PathBuf) -> Running {
        (self.start)(runtime, directory)
    }
}

impl<R> fmt::Debug for Case<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Case({})", self.name)
    }
}

/// The list of cases, from the functions of this module's parts.
macro_rules! list {
    ($runtime:ident: $($module:ident :: $name:ident),* $(,)?) => {
        vec![$(Case {
            name: stringify!($name),
            start: |runtime: $runtime, directory| Box::pin($module::$name(runtime, directory)),
        }),*]
    };
}

/// All cases, in the order in which they build upon each other.
#[must_use]
pub fn cases<R: Runtime>() -> Vec<Case<R>> {
    list!(R:
        tasks::spawned_tasks_run_later_and_in_order,
        tasks::yielding_lets_every_other_task_run,
        tasks::queues_all_progress,
        tasks::time_goes_forward,
        tasks::timers_resolve_in_order_of_their_deadlines,
        tasks::equal_timers_resolve_first_in_first_out,
        tasks::dropped_timers_are_forgotten,
        tasks::randomness_differs,
        mailboxes::a_mailbox_keeps_order_and_bound,
        mailboxes::a_full_mailbox_makes_senders_wait,
        mailboxes::a_dropped_sender_that_was_woken_passes_its_room_on,
        mailboxes::a_closed_mailbox_is_noticed,
        mailboxes::replies_need_no_room,
        drives::a_missing_directory_is_not_found,
        drives::a_directory_is_created_with_its_parents,
        drives::blocks_come_back_as_written,
        drives::large_transfers_are_whole,
        drives::reading_past_the_end_is_an_error,
        drives::unaligned_transfers_are_refused,
        drives::creating_twice_is_refused,
        drives::a_read_only_file_refuses_writes,
        drives::names_are_checked,
        drives::listing_sees_renames_links_and_removals,
        drives::a_removed_file_can_still_be_read,
        drives::allocation_extends_with_zeros,
        drives::many_operations_at_once,
        drives::dropped_operations_do_no_harm,
        drives::one_buffer_goes_to_many_files,
        drives::a_lock_excludes_others,
        drives::an_abandoned_directory_is_as_it_was,
        drives::what_is_no_file_is_told_apart,
        drives::paths_of_one_directory_lead_to_the_same,
        drives::space_and_device_are_told,
        network::bytes_are_echoed,
        network::large_sends_arrive_whole,
        network::both_directions_flow_at_once,
        network::a_slow_reader_holds_its_peer_back,
        network::the_end_of_the_stream_is_seen,
        network::what_was_sent_before_closing_arrives,
        network::shutdown_resolves_what_waits,
        network::dropped_receives_lose_nothing,
        network::connecting_to_nobody_is_refused,
        network::many_connections_at_once,
        network::a_dropped_accept_loses_nothing,
        network::an_abandoned_connect_does_no_harm,
    )
}

/// Runs every case, each in its own directory below `directory`.
pub async fn run_all<R: Runtime>(runtime: R, directory: &Path) {
    for case in cases::<R>() {
        case.run(runtime.clone(), directory.join(case.name)).await;
    }
}
