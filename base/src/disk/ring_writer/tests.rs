//! Tests of the ring writer on a ring that a test plays.
