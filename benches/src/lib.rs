//! The benchmarks: work W1, hand-written loops beside the engine, hops and end-to-end paths.
