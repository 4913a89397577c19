//! Ranges: create, start, sync, list and remove many Docker-in-Docker containers at a time.
