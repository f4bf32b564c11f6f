//! Who is in which room, and what they are told: plain decisions under one lock, with no I/O.
//!
//! Everything here has a bound, since strangers fill it: rooms, members, the length of texts, remembered messages.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use hyper::Uri;
use serde_json::{Value, json};

use crate::push::{Outbox, Pusher};

const MAX_ROOMS: usize = 200;
const MAX_MEMBERS: usize = 100;
const MAX_NAME_CHARS: usize = 32;
const MAX_TEXT_CHARS: usize = 1000;
const LISTED_ROOMS: usize = 50;
const RECENT_MESSAGES: usize = 50;
/// A push may have 128 KiB, and all recent messages travel in one.
const RECENT_BYTES: usize = 96 * 1024;

/// A browser, as the gateway names it.
pub struct Caller {
    pub id: String,
    pub callback_url: Uri,
}

/// Why a caller did not get what it asked for, in words for whoever typed it.
pub struct Refused {
    pub status: u16,
    pub message: String,
}

impl Refused {
    pub fn new(status: u16, message: String) -> Self {
        Self { status, message }
    }
}

pub struct Rooms {
    state: Mutex<State>,
    pusher: Pusher,
}

#[derive(Default)]
struct State {
    rooms: HashMap<String, Room>,
    room_of: HashMap<String, String>,
}

struct Room {
    members: Vec<Member>,
    recent: VecDeque<(Value, usize)>,
    last_used: Instant,
}

struct Member {
    id: String,
    name: String,
    outbox: Outbox,
}

impl Rooms {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), pusher: Pusher::new() })
    }

    /// Puts the caller into a room, out of the one it was in: it is told `joined`, then everybody `members`.
    pub fn join(self: &Arc<Self>, caller: Caller, name: &str, room_name: &str) -> Result<(), Refused> {
        let name = tidy("name", name, MAX_NAME_CHARS)?;
        let room_name = tidy("room", room_name, MAX_NAME_CHARS)?;
        let mut state = self.lock();
        state.make_space(&caller.id, &room_name)?;
        // The outbox is kept on a change of room, so that what was already on its way still comes first.
        let outbox = state.remove(&caller.id).map(|member| member.outbox);
        let outbox = outbox.unwrap_or_else(|| self.pusher.open(Arc::downgrade(self), &caller));
        let empty = || Room { members: Vec::new(), recent: VecDeque::new(), last_used: Instant::now() };
        let room = state.rooms.entry(room_name.clone()).or_insert_with(empty);
        let recent: Vec<_> = room.recent.iter().map(|(message, _)| message).collect();
        outbox.send(frame(json!({ "type": "joined", "room": room_name, "name": name, "recent": recent })));
        room.members.push(Member { id: caller.id.clone(), name, outbox });
        room.tell_members(&room_name);
        state.room_of.insert(caller.id, room_name);
        Ok(())
    }

    /// Tells everybody in the caller's room, the caller too.
    pub fn say(&self, id: &str, text: &str) -> Result<(), Refused> {
        let text = tidy("text", text, MAX_TEXT_CHARS)?;
        let mut state = self.lock();
        let State { rooms, room_of } = &mut *state;
        let room = room_of.get(id).and_then(|name| rooms.get_mut(name));
        let room = room.ok_or_else(|| Refused::new(409, "join a room first".into()))?;
        let from = room.members.iter().find(|member| member.id == id).map(|member| member.name.clone());
        room.remember(json!({ "type": "message", "from": from, "text": text, "at": now_ms() }));
        Ok(())
    }

    /// Forgets a connection; one that is not here is fine.
    pub fn leave(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Where somebody is, the fullest room first: what the page offers to who looks for one.
    pub fn list(&self) -> Value {
        let state = self.lock();
        let used = state.rooms.iter().filter(|(_, room)| !room.members.is_empty());
        let mut used: Vec<_> = used.map(|(name, room)| (Reverse(room.members.len()), name)).collect();
        used.sort_unstable();
        used.truncate(LISTED_ROOMS);
        let rooms = used.into_iter().map(|(Reverse(members), room)| json!({ "room": room, "members": members }));
        json!({ "rooms": rooms.collect::<Value>() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sees to it that `room_name` can take one more. Empty rooms keep their messages until their place is needed.
    fn make_space(&mut self, id: &str, room_name: &str) -> Result<(), Refused> {
        if let Some(room) = self.rooms.get(room_name) {
            let full = room.members.len() >= MAX_MEMBERS && !room.members.iter().any(|member| member.id == id);
            let message = || format!("the room {room_name} is full ({MAX_MEMBERS} members); try another one");
            return if full { Err(Refused::new(409, message())) } else { Ok(()) };
        }
        if self.rooms.len() >= MAX_ROOMS {
            let empty = self.rooms.iter().filter(|(_, room)| room.members.is_empty());
            let oldest = empty.min_by_key(|(_, room)| room.last_used).map(|(name, _)| name.clone());
            let message = || format!("there are {MAX_ROOMS} rooms already; join one that exists");
            self.rooms.remove(&oldest.ok_or_else(|| Refused::new(409, message()))?);
        }
        Ok(())
    }

    fn remove(&mut self, id: &str) -> Option<Member> {
        let room_name = self.room_of.remove(id)?;
        let room = self.rooms.get_mut(&room_name)?;
        let place = room.members.iter().position(|member| member.id == id)?;
        let member = room.members.remove(place);
        room.last_used = Instant::now();
        room.tell_members(&room_name);
        Some(member)
    }
}

impl Room {
    fn tell_members(&self, room_name: &str) {
        let names: Vec<_> = self.members.iter().map(|member| &member.name).collect();
        self.tell(frame(json!({ "type": "members", "room": room_name, "members": names })));
    }

    fn remember(&mut self, message: Value) {
        let body = frame(message.clone());
        self.recent.push_back((message, body.len()));
        let bytes = |recent: &VecDeque<(Value, usize)>| recent.iter().map(|(_, bytes)| bytes).sum::<usize>();
        while self.recent.len() > RECENT_MESSAGES || bytes(&self.recent) > RECENT_BYTES {
            self.recent.pop_front();
        }
        self.tell(body);
    }

    fn tell(&self, body: Bytes) {
        self.members.iter().for_each(|member| member.outbox.send(body.clone()));
    }
}

fn tidy(what: &str, text: &str, max_chars: usize) -> Result<String, Refused> {
    let text = text.trim();
    let chars = text.chars().count();
    match chars {
        0 => Err(Refused::new(400, format!("the {what} is empty"))),
        _ if chars > max_chars => {
            Err(Refused::new(400, format!("the {what} has {chars} characters; {max_chars} is the most")))
        }
        _ => Ok(text.to_owned()),
    }
}

fn frame(value: Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
