//! A timer that wakes a thread's epoll: its own timeout counts in milliseconds on kernels before 5.11.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Event data of the alarm; no connection has it.
pub(super) const ALARM: u64 = u64::MAX;

/// A timer that shows up among a thread's events. Good to some 10 µs; timer slack does not apply to it.
#[derive(Debug)]
pub(super) struct Alarm(OwnedFd);

impl Alarm {
    /// Makes one and has `epoll` watch it.
    pub(super) fn new(epoll: &OwnedFd) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(epoll, &timer, EventData::new_u64(ALARM), EventFlags::IN)?;
        Ok(Self(timer))
    }

    /// Goes off once, `wait_us` (above 0) from now, whatever it was set to before.
    pub(super) fn set(&self, wait_us: u64) -> io::Result<()> {
        // Far away is as good as never: something nearer will be set before.
        let wait_us = wait_us.min(3_600_000_000);
        let value =
            Timespec { tv_sec: (wait_us / 1_000_000) as i64, tv_nsec: (wait_us % 1_000_000 * 1_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Takes note that it went off.
    pub(super) fn clear(&self) {
        // Nothing to read means that it was set anew meanwhile, which cleared it too.
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}
