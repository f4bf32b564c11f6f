//! A fixed rate: what is due is handed out evenly, whether or not what went before is done.
//!
//! The runtime's timers know milliseconds only, and at 20,000 a second twenty at once would be measured as waiting
//! for each other. The kernel's timers are finer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use crate::stats::Latencies;

/// Long enough that a wake-up for each costs the generator's core little, short enough that a tick's few do not queue.
const TICK: Duration = Duration::from_micros(100);

/// Hands out turns at a fixed rate.
pub struct Pace {
    /// When each turn that nobody has taken yet was handed out.
    waiting: RefCell<VecDeque<Instant>>,
    turns: Semaphore,
    late: Latencies,
}

impl Pace {
    pub fn start(per_second: usize) -> io::Result<Rc<Self>> {
        let mut ticks = Ticks::new(TICK)?;
        let pace = Rc::new(Pace { waiting: RefCell::default(), turns: Semaphore::new(0), late: Latencies::new() });
        let (giver, start) = (pace.clone(), Instant::now());
        spawn_local(async move {
            let mut given = 0;
            while ticks.next().await.is_ok() {
                let now = Instant::now();
                let due = due(now - start, per_second) - given;
                giver.waiting.borrow_mut().extend(std::iter::repeat_n(now, due));
                giver.turns.add_permits(due);
                for number in given..given + due {
                    giver.late.record(
                        (now - start).saturating_sub(Duration::from_secs_f64(number as f64 / per_second as f64)),
                    );
                }
                given += due;
            }
        });
        Ok(pace)
    }

    /// Waits for a turn, and gives the instant from which its latency counts. A turn that nobody was free to take
    /// counts from when it was handed out; that the generator handed it out late is not the server's fault.
    pub async fn turn(&self) -> Instant {
        self.turns.acquire().await.expect("the semaphore is never closed").forget();
        self.waiting.borrow_mut().pop_front().expect("there is an instant for each turn")
    }

    /// How late turns were handed out, which is what the generator's own delays add to no latency.
    pub fn late_micros(&self) -> Value {
        self.late.micros()
    }
}

fn due(elapsed: Duration, per_second: usize) -> usize {
    (elapsed.as_secs_f64() * per_second as f64) as usize
}

/// A timer of the kernel. What is read of it are counts, as if from a pipe, and that is how the runtime waits for it:
/// its own way for any file is unsafe.
struct Ticks(Receiver);

impl Ticks {
    fn new(every: Duration) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let every = Timespec { tv_sec: every.as_secs() as i64, tv_nsec: every.subsec_nanos().into() };
        let times = Itimerspec { it_interval: every, it_value: every };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        Ok(Ticks(Receiver::from_owned_fd_unchecked(timer)?))
    }

    async fn next(&mut self) -> io::Result<()> {
        self.0.read_exact(&mut [0u8; 8]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_due_evenly() {
        assert_eq!(due(Duration::from_micros(100), 20_000), 2);
        assert_eq!(due(Duration::from_micros(149), 20_000), 2);
        assert_eq!(due(Duration::from_secs(3), 7), 21);
    }

    #[tokio::test]
    async fn no_turn_comes_before_it_is_due() {
        let turns = async {
            let (pace, start) = (Pace::start(1_000).unwrap(), Instant::now());
            for _ in 0..20 {
                pace.turn().await;
            }
            start.elapsed()
        };
        assert!(tokio::task::LocalSet::new().run_until(turns).await >= Duration::from_millis(19));
    }
}
