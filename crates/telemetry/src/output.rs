//! Where lines go: a bounded queue, and a thread that alone may wait for whoever reads them.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Lines that wait to be written. With the longest lines it is 4 MB.
const WAITING_MAX: usize = 512;

/// Takes lines and never waits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Output {
    messages: Sender<Message>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines that wait. The queue itself has no bound, so that whoever stops can always ask for its end.
    waiting: AtomicUsize,
    left_out: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Line(String),
    /// Answered once everything before it is written.
    Flush(Sender<()>),
}

impl Output {
    /// Writes to `writer` in a thread of its own, which ends with the process: it may be waiting for a reader that is none.
    ///
    /// `notice` makes the line that says how many were left out.
    pub fn start(
        writer: impl Write + Send + 'static,
        notice: impl Fn(u64) -> String + Send + 'static,
    ) -> (Self, Writing) {
        let (messages, waiting) = channel();
        let output = Self {
            messages,
            counts: Arc::default(),
        };
        let counts = Arc::clone(&output.counts);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Without the thread, its end of the queue is gone, and every line is left out.
        let write = move || {
            let mut writer = Writer {
                writer,
                counts,
                notice,
            };
            writer.run(&waiting);
        };
        thread.spawn(write).ok();
        (output.clone(), Writing { output })
    }

    /// Writes a line, or leaves it out if too many wait.
    pub fn line(&self, line: String) {
        let Counts { waiting, left_out } = &*self.counts;
        // Several threads may pass at once: a few lines more than the bound are no harm.
        if waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.fetch_add(1, Ordering::Relaxed);
        // Nobody is left to tell if the thread is gone.
        self.messages.send(Message::Line(line)).ok();
    }
}

/// The thread that writes.
#[derive(Debug)]
pub struct Writing {
    output: Output,
}

impl Writing {
    /// Waits until what was logged so far is written, at most so long. Returns whether it was.
    pub fn finish(&self, within: Duration) -> bool {
        let (done, written) = channel();
        self.output.messages.send(Message::Flush(done)).is_ok()
            && written.recv_timeout(within).is_ok()
    }
}

/// What the thread has.
struct Writer<W, N> {
    writer: W,
    counts: Arc<Counts>,
    notice: N,
}

impl<W: Write, N: Fn(u64) -> String> Writer<W, N> {
    fn run(&mut self, waiting: &Receiver<Message>) {
        while let Ok(message) = waiting.recv() {
            match message {
                Message::Line(line) => {
                    self.line(line);
                    self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
                    let left_out = self.counts.left_out.swap(0, Ordering::Relaxed);
                    if left_out > 0 {
                        self.line((self.notice)(left_out));
                    }
                }
                Message::Flush(done) => {
                    self.writer.flush().ok();
                    done.send(()).ok();
                }
            }
        }
    }

    fn line(&mut self, mut line: String) {
        line.push('\n');
        // A pipe that nobody holds any more is no reason to stop: the environment is worth more than its log.
        self.writer.write_all(line.as_bytes()).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::kept::Kept;

    /// Waits for a reader before its first line, as a full pipe does. Without one it is closed.
    struct Slow(Receiver<()>, Kept);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1.text().is_empty() {
                self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn notice(lines: u64) -> String {
        format!("{lines} left out")
    }

    #[test]
    fn lines_are_written_in_order_before_it_ends() {
        let kept = Kept::default();
        let (output, writing) = Output::start(kept.clone(), notice);
        for line in ["one", "two"] {
            output.line(line.to_owned());
        }
        assert!(writing.finish(Duration::from_secs(10)));
        assert_eq!(kept.text(), "one\ntwo\n");
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read_and_what_is_lost_is_counted() {
        let (reader, read) = channel();
        let kept = Kept::default();
        let (output, writing) = Output::start(Slow(read, kept.clone()), notice);
        for number in 0..2000 {
            output.line(number.to_string());
        }
        assert!(!writing.finish(Duration::ZERO), "nobody reads");
        reader.send(()).expect("it waits");
        assert!(writing.finish(Duration::from_secs(10)));
        let text = kept.text();
        let (notices, lines): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.ends_with("left out"));
        assert_eq!(lines.len(), WAITING_MAX);
        assert_eq!(
            notices,
            [notice(u64::try_from(2000 - lines.len()).expect("few"))]
        );
    }

    #[test]
    fn a_closed_pipe_is_no_end() {
        let (reader, read) = channel();
        drop(reader);
        let (output, writing) = Output::start(Slow(read, Kept::default()), notice);
        for _ in 0..10 {
            output.line("x".to_owned());
        }
        assert!(writing.finish(Duration::from_secs(10)), "it went on");
    }
}
