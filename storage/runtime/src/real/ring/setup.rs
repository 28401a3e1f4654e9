//! Creating the ring, and refusing kernels that cannot carry it.
//!
//! Wanted: SINGLE_ISSUER, DEFER_TASKRUN, COOP_TASKRUN and TASKRUN_FLAG, so that completions never interrupt the
//! running thread but are collected when it asks. Where the kernel refuses a combination, the next weaker one is
//! taken; correctness is the same, and [`super::RingStats::setup`] says which it was.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use io_uring::IoUring;

use super::provided::ProvidedBuffers;
use super::{Ring, RingStats, Slab};

/// Sizes of a shard ring.
#[derive(Debug, Clone, Copy)]
pub(in crate::real) struct RingConfig {
    pub(in crate::real) submission_entries: u32,
    pub(in crate::real) completion_entries: u32,
    pub(in crate::real) receive_buffers: u16,
}

/// Why this kernel is refused.
#[derive(Debug)]
pub(in crate::real) enum KernelRefusal {
    TooOld { release: String },
    Forbidden(io::Error),
    Other(io::Error),
}

const KERNEL_MIN: (u32, u32) = (6, 1);

/// Tells whether this kernel can carry shard rings.
pub(in crate::real) fn check_kernel() -> Result<(), KernelRefusal> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&release).is_some_and(|version| version < KERNEL_MIN) {
        return Err(KernelRefusal::TooOld { release });
    }
    match IoUring::new(8) {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Err(KernelRefusal::Forbidden(error)),
            _ => Err(KernelRefusal::Other(error)),
        },
    }
}

/// Major and minor number of a release such as `6.1.0-13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl Ring {
    /// Creates the ring of the calling thread.
    pub(in crate::real) fn new(config: RingConfig) -> io::Result<Rc<Ring>> {
        let (io, setup, taskrun_flag) = create(config)?;
        let registered_descriptor = io.submitter().register_ring_fd().is_ok();
        let mut provided = ProvidedBuffers::allocate(config.receive_buffers);
        provided.register(&io).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("the kernel refuses a ring of receive buffers: {error}"),
            )
        })?;
        let stats = RingStats {
            setup,
            registered_descriptor,
            receive_buffer_bytes: provided.bytes(),
            ..RingStats::default()
        };
        Ok(Rc::new(Ring {
            io: RefCell::new(io),
            slab: RefCell::new(Slab::default()),
            backlog: RefCell::new(VecDeque::new()),
            queued: Cell::new(0),
            batch: RefCell::new(Vec::new()),
            provided,
            taskrun_flag,
            closing: Cell::new(false),
            stats: Cell::new(stats),
        }))
    }
}

/// The best ring that the kernel grants, its name, and whether it flags pending task work.
fn create(config: RingConfig) -> io::Result<(IoUring, &'static str, bool)> {
    let mut refused = None;
    for (setup, defer, cooperative) in [
        ("single issuer, deferred task work", true, true),
        ("cooperative", false, true),
        ("plain", false, false),
    ] {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(config.completion_entries);
        if defer {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        if cooperative {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }
        match builder.build(config.submission_entries) {
            Ok(io) => return Ok((io, setup, cooperative)),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.expect("three attempts were made"))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn reads_releases() {
        for (release, expected) in [
            ("6.1.0-13-amd64", Some((6, 1))),
            ("5.15.167.4-microsoft-standard-WSL2", Some((5, 15))),
            ("6.18+", Some((6, 18))),
            ("next", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
