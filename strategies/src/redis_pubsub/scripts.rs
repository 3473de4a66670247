//! What Redis runs in one step, and the keys that it runs on.
//!
//! A room has one key that lives as long as anybody cares for the room: its [head](super::sequence). Where history is kept it
//! has two more kinds, in the same slot: a stream of its last messages, whose ids are the offsets, and one short-lived key per
//! message id, which holds the head of the message that had this id. So a message is counted, recognised if it is a
//! repeat, kept and published by one script, or nothing of that happens.
//!
//! Whoever asks says which [life](crate::clients::redis::topology::incarnation) of the server it is connected to. A head that
//! another life wrote (a master before a failover, a process before its restart, the former owner of a slot) may be older
//! than what publishers and members were told there. It counts no further: the room gets a new epoch.
//!
//! What expires is not kept alive with every message, but once per *term*, a part of its time to live by the clock of the node
//! that publishes. The head's last bytes say in which term that was; keys live for one term more.

/// Assigns the next offset and publishes, in one step. KEYS: head. ARGV: message, epoch to draw, seconds to live,
/// `PUBLISH` or `SPUBLISH`, or an empty string to only assign, life of the server, term. Returns the head.
pub(super) const PUBLISH_SCRIPT: &str = "\
local head = redis.call('GET', KEYS[1])
local epoch, offset, alive = ARGV[2], 1, false
if head and string.sub(head, 17, 24) == ARGV[5] then
epoch = string.sub(head, 1, 8) offset = struct.unpack('>I8', head, 9) + 1
alive = string.sub(head, 25) == ARGV[6]
end
head = epoch .. struct.pack('>I8', offset)
if alive then redis.call('SETRANGE', KEYS[1], 8, string.sub(head, 9))
else redis.call('SET', KEYS[1], head .. ARGV[5] .. ARGV[6], 'EX', ARGV[3]) end
if ARGV[4] ~= '' then redis.call(ARGV[4], KEYS[1], head .. ARGV[1]) end
return head";

/// As [`PUBLISH_SCRIPT`], and keeps the message; a message id that came before gets the head it had then, and nothing else
/// happens. One that came in an earlier epoch is published again: nobody can tell whether it reached everybody before the
/// server's life ended, and receivers drop what they have. KEYS: head, stream, message id. ARGV: as there, then messages to keep, seconds to keep them, seconds to remember the id.
///
/// A fourth key is the id of a message on the way before it: if that was refused, nothing happens for this one either.
///
/// A stream that does not take the offset is of an earlier epoch: it starts anew. Whoever only assigns leaves it to the next
/// message to keep the stream alive.
pub(super) const KEEPING_PUBLISH_SCRIPT: &str = "\
if KEYS[4] and redis.call('EXISTS', KEYS[4]) == 0 then
return redis.error_reply('ERR the message before it was refused')
end
local head = redis.call('GET', KEYS[1])
local epoch, offset, alive = ARGV[2], 1, false
if head and string.sub(head, 17, 24) == ARGV[5] then
epoch = string.sub(head, 1, 8) offset = struct.unpack('>I8', head, 9) + 1
alive = string.sub(head, 25) == ARGV[6]
end
head = epoch .. struct.pack('>I8', offset)
if not redis.call('SET', KEYS[3], head, 'NX', 'EX', ARGV[9]) then
local first = redis.call('GET', KEYS[3])
if string.sub(first, 1, 8) == epoch then return first end
redis.call('SET', KEYS[3], head, 'EX', ARGV[9])
end
if ARGV[4] == '' then
redis.call('SET', KEYS[1], head .. ARGV[5], 'EX', ARGV[3])
return head
end
if alive then redis.call('SETRANGE', KEYS[1], 8, string.sub(head, 9))
else redis.call('SET', KEYS[1], head .. ARGV[5] .. ARGV[6], 'EX', ARGV[3]) end
local id = string.format('%.0f-0', offset)
local added = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[7], id, epoch, ARGV[1])
if type(added) ~= 'string' then
redis.call('DEL', KEYS[2])
redis.call('XADD', KEYS[2], id, epoch, ARGV[1])
alive = false
end
if not alive then redis.call('EXPIRE', KEYS[2], ARGV[8]) end
redis.call(ARGV[4], KEYS[1], head .. ARGV[1])
return head";

/// Publishes under a position that was assigned before, unless the room has left that epoch. KEYS: head. ARGV: head,
/// message, `PUBLISH` or `SPUBLISH`. Returns the head.
pub(super) const ANNOUNCE_SCRIPT: &str = "\
local head = redis.call('GET', KEYS[1])
if head and string.sub(head, 1, 8) == string.sub(ARGV[1], 1, 8) then
redis.call(ARGV[3], KEYS[1], ARGV[1] .. ARGV[2])
end
return ARGV[1]";

/// As [`ANNOUNCE_SCRIPT`], and keeps the message. KEYS: head, stream. ARGV: as there, then messages to keep, seconds to keep them.
///
/// Positions may be announced in another order than they were assigned in. A stream takes rising ids only, so the late one
/// is not kept: readers find a hole, and take nothing for complete that spans it.
pub(super) const KEEPING_ANNOUNCE_SCRIPT: &str = "\
local head = redis.call('GET', KEYS[1])
local epoch = string.sub(ARGV[1], 1, 8)
if not head or string.sub(head, 1, 8) ~= epoch then return ARGV[1] end
local id = string.format('%.0f-0', struct.unpack('>I8', ARGV[1], 9))
local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], id, epoch, ARGV[2])
if type(added) == 'table' then
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if not newest or newest[2][1] ~= epoch then
redis.call('DEL', KEYS[2])
redis.call('XADD', KEYS[2], id, epoch, ARGV[2])
end
end
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call(ARGV[3], KEYS[1], ARGV[1] .. ARGV[2])
return ARGV[1]";

/// Returns the head of a room and keeps it alive; starts an epoch if there is none, if another life of the server wrote it,
/// or if it fell behind what the asking node has seen. KEYS: head. ARGV: epoch to draw, seconds to live, last head seen or
/// an empty string, life of the server.
pub(super) const TOP_SCRIPT: &str = "\
local head = redis.call('GET', KEYS[1])
local seen = ARGV[3]
if head and string.sub(head, 17, 24) == ARGV[4]
and (seen == '' or string.sub(head, 1, 8) ~= string.sub(seen, 1, 8)
or struct.unpack('>I8', head, 9) >= struct.unpack('>I8', seen, 9)) then
redis.call('EXPIRE', KEYS[1], ARGV[2])
return string.sub(head, 1, 16)
end
head = ARGV[1] .. struct.pack('>I8', 0)
redis.call('SET', KEYS[1], head .. ARGV[4], 'EX', ARGV[2])
return head";

/// Returns the head of a room, as [`TOP_SCRIPT`] does, and what the stream has from a place on. KEYS: head, stream. ARGV: epoch
/// to draw, seconds to live, life of the server, epoch that the place is of or an empty string, the place as a stream
/// id or interval, entries at most, bytes after which it is enough, `XRANGE` or `XREVRANGE`, most offsets that may lie
/// behind the place or an empty string, the place's offset.
///
/// It always writes, so that a server that is master no more refuses it. A few entries are read at a time, so that
/// large ones do not fill the script's memory before they are counted.
pub(super) const READ_SCRIPT: &str = "\
local head = redis.call('GET', KEYS[1])
if head and string.sub(head, 17, 24) == ARGV[3] then
redis.call('EXPIRE', KEYS[1], ARGV[2])
head = string.sub(head, 1, 16)
else
head = ARGV[1] .. struct.pack('>I8', 0)
redis.call('SET', KEYS[1], head .. ARGV[3], 'EX', ARGV[2])
end
local entries, bytes, at = {}, 0, ARGV[5]
local most, enough = tonumber(ARGV[6]), tonumber(ARGV[7])
if ARGV[4] ~= '' and ARGV[4] ~= string.sub(head, 1, 8) then return {head, entries} end
if ARGV[9] ~= '' and struct.unpack('>I8', head, 9) - tonumber(ARGV[10]) > tonumber(ARGV[9]) then return {head, entries} end
local last = '+'
if ARGV[8] == 'XREVRANGE' then last = '-' end
while #entries < most and bytes < enough do
local some = redis.call(ARGV[8], KEYS[2], at, last, 'COUNT', math.min(16, most - #entries))
if #some == 0 then break end
for _, entry in ipairs(some) do
entries[#entries + 1] = entry
bytes = bytes + #entry[2][2]
end
at = '(' .. entries[#entries][1]
end
return {head, entries}";
