//! What each shard is loaded with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cairn_runtime::conformance::Asked;
use cairn_runtime::mailbox::{MailboxReceiver, MailboxSender, reply};
use cairn_runtime::real::{RealDrive, RealRuntime};
use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Connection, Drive, File, Listener, Open, Queue, Runtime};
use futures_util::future::{Either, select};

use crate::ANY_PORT;
use crate::watch::{Watch, Work, processor_wait};

const TIMERS: usize = 16;
const WRITERS: u64 = 8;
const CLIENTS: usize = 12;
const ASKERS: usize = 16;

/// One shard's load.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) runtime: RealRuntime,
    pub(crate) watch: Arc<Watch>,
    pub(crate) directory: PathBuf,
    pub(crate) to_neighbour: MailboxSender<Asked>,
}

impl Load {
    pub(crate) async fn start(self, asked: MailboxReceiver<Asked>) {
        let runtime = self.runtime.clone();
        let drive = runtime.drive(&self.directory, true).await.unwrap();
        for entry in drive.list().await.unwrap() {
            drive.remove(&entry.name).await.unwrap();
        }
        for _ in 0..TIMERS {
            runtime.spawn(Queue::Foreground, self.clone().time());
        }
        for writer in 0..WRITERS {
            runtime.spawn(Queue::Foreground, self.clone().write(drive.clone(), writer));
        }
        let listener = runtime.listen(ANY_PORT).unwrap();
        let address = listener.address();
        runtime.spawn(Queue::Foreground, self.clone().accept(listener));
        for _ in 0..CLIENTS {
            runtime.spawn(Queue::Foreground, self.clone().call(address));
        }
        runtime.spawn(Queue::Foreground, self.clone().answer(asked));
        for _ in 0..ASKERS {
            runtime.spawn(Queue::Foreground, self.clone().ask());
        }
        runtime.spawn(Queue::Background, self.clone().compute(Work::Background));
        runtime.spawn(Queue::Replication, self.compute(Work::Replication));
    }

    fn done(&self, work: Work) {
        self.watch.done(self.runtime.shard().0, work);
    }

    /// A random number below `limit`.
    fn below(&self, limit: u64) -> u64 {
        self.runtime.random_u64() % limit
    }

    /// Runs `operation`, or drops it after a random moment.
    async fn maybe_dropped<T>(&self, operation: impl Future<Output = T>) -> Option<T> {
        if self.below(4) > 0 {
            return Some(operation.await);
        }
        let patience = self.runtime.sleep(Duration::from_micros(self.below(500)));
        match select(std::pin::pin!(operation), std::pin::pin!(patience)).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }

    async fn time(self) {
        loop {
            let due = self.runtime.now() + Duration::from_micros(self.below(5000));
            let waited = processor_wait();
            self.runtime.sleep(due.since(self.runtime.now())).await;
            let gap = self.runtime.now().since(due);
            // What the machine did to the thread is not the runtime's doing.
            self.watch.gap(gap, gap.saturating_sub(processor_wait() - waited));
            self.done(Work::Timer);
        }
    }

    async fn write(self, drive: RealDrive, writer: u64) {
        const BLOCKS: u64 = 64;
        let how = Open {
            create_new: true,
            durable: writer.is_multiple_of(2),
            read_only: false,
        };
        let file = drive.open(&format!("file-{writer}"), how).await.unwrap();
        file.allocate(BLOCKS * BLOCK_BYTES as u64).await.unwrap();
        // A dropped write goes on by itself: its block is not touched again, so that no two writes meet.
        let mut abandoned = [false; BLOCKS as usize];
        let mut round = 0u64;
        loop {
            round += 1;
            let place = self.below(BLOCKS);
            let offset = place * BLOCK_BYTES as u64;
            if abandoned.iter().filter(|&&block| block).count() > BLOCKS as usize / 2 {
                file.sync().await.unwrap();
                self.runtime.sleep(Duration::from_millis(200)).await;
                abandoned = [false; BLOCKS as usize];
            }
            if abandoned[place as usize] {
                continue;
            }
            let content = [round.to_le_bytes(), writer.to_le_bytes()]
                .concat()
                .repeat(BLOCK_BYTES / 16);
            let write = file.write_at(offset, Rc::new(AlignedBuffer::from_slice(&content)));
            match self.maybe_dropped(write).await {
                Some(result) => {
                    result.unwrap();
                    if let Some(read) = self.maybe_dropped(file.read_at(offset, BLOCK_BYTES)).await {
                        assert!(read.unwrap()[..] == content[..], "what was written comes back");
                    }
                }
                None => abandoned[place as usize] = true,
            }
            if self.below(50) == 0 {
                let _ = self.maybe_dropped(file.sync()).await;
                let _ = self.maybe_dropped(drive.sync()).await;
            }
            self.done(Work::Drive);
        }
    }

    async fn accept(self, listener: impl Listener) {
        loop {
            let Some(accepted) = self.maybe_dropped(listener.accept()).await else {
                continue;
            };
            let connection = accepted.unwrap();
            self.done(Work::Accept);
            self.runtime
                .spawn(Queue::Foreground, self.clone().echo(connection));
        }
    }

    async fn echo(self, connection: impl Connection) {
        let mut bytes = Vec::new();
        loop {
            match self.maybe_dropped(connection.receive(&mut bytes)).await {
                None => {}
                Some(Ok(1..)) => match connection.send(bytes).await {
                    Ok(returned) => bytes = returned,
                    Err(_) => return,
                },
                Some(_) => return,
            }
        }
    }

    async fn call(self, address: SocketAddr) {
        loop {
            let Some(connected) = self.maybe_dropped(self.runtime.connect(address)).await else {
                continue;
            };
            let Ok(connection) = connected else { continue };
            for _ in 0..self.below(200) {
                let length = 1 + self.below(if self.below(50) == 0 { 1 << 20 } else { 3000 }) as usize;
                let byte = self.below(256) as u8;
                if self.exchange(&connection, vec![byte; length]).await.is_none() {
                    break;
                }
                self.done(Work::Network);
            }
            if self.below(2) == 0 {
                connection.shutdown();
            }
        }
    }

    /// Sends and receives at once; `None` when an operation was dropped and the stream is out of step.
    async fn exchange(&self, connection: &impl Connection, content: Vec<u8>) -> Option<()> {
        let (length, byte) = (content.len(), content[0]);
        let mut received = Vec::new();
        let receive = async {
            while received.len() < length {
                if let Some(result) = self.maybe_dropped(connection.receive(&mut received)).await {
                    result.ok().filter(|&count| count > 0)?;
                }
            }
            Some(())
        };
        let send = async {
            if self.below(100) == 0 {
                // Dropped in the middle: this connection cannot be used any more.
                let _ = self.maybe_dropped(connection.send(content)).await;
                return None;
            }
            connection.send(content).await.ok().map(drop)
        };
        match select(std::pin::pin!(send), std::pin::pin!(receive)).await {
            Either::Left((sent, receive)) => {
                sent?;
                receive.await?;
            }
            Either::Right((ended, send)) => {
                ended?;
                send.await?;
            }
        }
        assert!(
            received.len() == length && received.iter().all(|&echoed| echoed == byte),
            "the echo is true"
        );
        Some(())
    }

    async fn answer(self, mut asked: MailboxReceiver<Asked>) {
        let mut batch = Vec::new();
        while let Some(first) = asked.recv().await {
            batch.push(first);
            asked.drain(&mut batch);
            for (number, sender) in batch.drain(..) {
                if self.below(10) > 0 {
                    sender.send(number + 1);
                }
            }
        }
    }

    async fn ask(self) {
        loop {
            let number = self.runtime.random_u64() >> 1;
            let (sender, answer) = reply();
            match self.maybe_dropped(self.to_neighbour.send((number, sender))).await {
                Some(Ok(())) => {}
                None => continue,
                // The neighbour has ended.
                Some(Err(_)) => return,
            }
            if let Some(Ok(answer)) = self.maybe_dropped(answer).await {
                assert_eq!(answer, number + 1);
            }
            self.done(Work::Ask);
            if self.below(8) == 0 {
                self.runtime.sleep(Duration::from_micros(self.below(2000))).await;
            }
        }
    }

    /// Computes in slices, then rests, so that the driver meets busy and silent neighbours.
    async fn compute(self, work: Work) {
        loop {
            for _ in 0..self.below(200) {
                let until = self.runtime.now() + Duration::from_micros(self.below(100));
                while self.runtime.now() < until {
                    std::hint::spin_loop();
                }
                self.done(work);
                self.runtime.yield_now().await;
            }
            self.runtime
                .sleep(Duration::from_micros(self.below(20_000)))
                .await;
        }
    }
}

/// Waits for the peer's end, which does not come.
pub(crate) async fn wait_for_end(connection: impl Connection) {
    let _ = connection.receive(&mut Vec::new()).await;
}
