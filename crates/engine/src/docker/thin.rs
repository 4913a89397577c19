//! The thin archive: all layers named, only the missing ones inside.
