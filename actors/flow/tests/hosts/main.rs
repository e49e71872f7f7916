//! Detectors against made-up networks: each shape of attack is found and named, and what merely looks like one is left alone.

mod attacks;
mod benign;
mod bounded;
mod carried;
mod crowds;
mod edges;
mod flows;
mod guesses;
mod hidden;
mod net;
mod quiet_sites;
mod shapes;
mod site;
