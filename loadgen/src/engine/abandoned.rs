//! Sockets that their clients left open, unread and unanswered: until the server finds out.

use std::net::TcpStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

/// The server's goodbye stands behind what it sent before: there must be room for both.
const BUFFER_BYTES: usize = 1 << 20;
/// Do not wait.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Sockets that nobody reads any more. One is closed once its server has hung up, so that they are no more than servers
/// still believe in.
#[derive(Debug, Default)]
pub(super) struct Abandoned(Vec<TcpStream>);

impl Abandoned {
    /// Leaves a socket open.
    pub(super) fn leave(&mut self, socket: TcpStream) {
        // Where the kernel refuses, the goodbye may not be seen, and the socket stays until the end.
        let _ = SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES);
        self.0.push(socket);
    }

    /// Closes those whose servers have hung up.
    pub(super) fn close_ended(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let mut asked: Vec<PollFd<'_>> =
            self.0.iter().map(|socket| PollFd::new(socket, PollFlags::RDHUP)).collect();
        // Where the kernel does not say, they stay.
        if poll(&mut asked, Some(&AT_ONCE)).is_err() {
            return;
        }
        let ended: Vec<bool> = asked.iter().map(|one| !one.revents().is_empty()).collect();
        let mut ended = ended.into_iter();
        self.0.retain(|_| !ended.next().unwrap_or(false));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_socket_is_kept_until_its_server_hangs_up_whatever_it_said_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut abandoned = Abandoned::default();
        abandoned.leave(client());
        abandoned.leave(client());
        let (mut ends, _) = listener.accept().unwrap();
        let (stays, _) = listener.accept().unwrap();
        ends.write_all(&[b'x'; 4_096]).unwrap();
        abandoned.close_ended();
        assert_eq!(abandoned.0.len(), 2, "what has come is left unread");
        drop(ends);
        let deadline = Instant::now() + Duration::from_secs(5);
        while abandoned.0.len() > 1 && Instant::now() < deadline {
            abandoned.close_ended();
            std::thread::yield_now();
        }
        assert_eq!(abandoned.0.len(), 1);
        drop(stays);
    }
}
