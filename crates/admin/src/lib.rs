//! The admin server, its handlers and its security. Knows no router.
