//! Audiences: contacts that are kept in the daemon.
