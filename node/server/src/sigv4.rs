//! To be written by its author.
