//! The gateway from outside: a real one on a free port, a backend that remembers, real clients; and the rules of the
//! repository itself.

mod documents;
mod floors;
mod life;
mod ordering;
mod pushes;
mod sockets;
mod world;
