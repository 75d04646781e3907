//! Telemeters: each wires an encoder to an admin path or a socket.
