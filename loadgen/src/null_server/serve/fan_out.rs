//! A message on its way to the members of its room, and what goes wrong with it on purpose.

use std::time::{Duration, Instant};

use super::super::rooms::Deed;
use super::Server;

impl Server {
    /// Gives a message to all members of a room.
    pub(super) fn fan_out(&mut self, room: u32, data: &[u8]) {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.extend_from_slice(self.rooms.frame(room, data));
        let members = std::mem::take(&mut self.rooms.all[room as usize].members);
        let mut failed = Vec::new();
        let mut told = Vec::new();
        for &member in &members {
            let outcome = match self.rooms.deed(self.settings.misbehaviour) {
                Deed::Send => self.push(member, &frame),
                Deed::Drop => Ok(()),
                Deed::Repeat => self.push(member, &frame).and_then(|()| self.push(member, &frame)),
                Deed::Hold => self.session(member).map(|session| session.held = Some(frame.clone())),
                Deed::Late(by) => {
                    self.delay(member, &frame, by);
                    Ok(())
                }
                Deed::Echo(by) => {
                    self.delay(member, &frame, by);
                    self.push(member, &frame)
                }
                Deed::AlsoToStranger => {
                    let stranger = (0..self.sessions.len() as u32)
                        .find(|id| !members.contains(id) && self.sessions[*id as usize].is_some());
                    stranger
                        .map_or(Ok(()), |id| self.push(id, &frame))
                        .and_then(|()| self.push(member, &frame))
                }
                Deed::Damage => {
                    let mut damaged = frame.clone();
                    // A byte of the stamp: the payload's end is padding, its front is what the audit reads.
                    let at = damaged.len() - data.len() + 8;
                    damaged[at] = if damaged[at] == b'x' { b'y' } else { b'x' };
                    self.push(member, &damaged)
                }
                Deed::Gap => {
                    told.push(member);
                    let gap = self.rooms.gap_frame(room);
                    self.push(member, &gap)
                }
            };
            if outcome.is_err() {
                failed.push(member);
            }
        }
        self.rooms.all[room as usize].members = members;
        self.frame = frame;
        // A member that was told is out until it subscribes again.
        told.into_iter().for_each(|member| drop(self.leave(member, room)));
        failed.into_iter().for_each(|member| self.drop_session(member));
    }

    fn delay(&mut self, member: u32, frame: &[u8], by: Duration) {
        self.late.push((Instant::now() + by, member, frame.to_vec()));
    }

    /// Sends what was delayed and is due.
    pub(super) fn send_late(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.late.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, member, frame) in due {
            if self.push(member, &frame).is_err() {
                self.drop_session(member);
            }
        }
    }
}
