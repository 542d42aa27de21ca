//! Tests of what the filesystem demands of transfers past the cache.
