//! Brokers to try with, in this process and its memory: librdkafka's own mock cluster, with topics of one partition each.
//!
//! ```sh
//! cargo run -p tidegate-kafka --example broker -- tidegate.log
//! ```

use rdkafka::mocking::MockCluster;
use std::io::Read;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut topics: Vec<String> = std::env::args().skip(1).collect();
    if topics.is_empty() {
        topics.push("tidegate.log".to_owned());
    }
    let cluster = MockCluster::new(3)?;
    for topic in &topics {
        cluster.create_topic(topic, 1, 3)?;
    }
    println!("topic {} at {}", topics.join(", "), cluster.bootstrap_servers());
    println!("it ends, and all that is in it is gone, when the standard input ends");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
