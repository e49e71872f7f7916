//! A feed: made-up trades into a server on this machine. `cargo run -p tidegate-quic --example publish -- DATA_DIR`
#![forbid(unsafe_code)]

use std::path::PathBuf;
use tidegate_engine::{Event, Price, Size, flag};
use tidegate_quic::{ClientOptions, Publisher, PublisherOptions, Trust};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = PathBuf::from(std::env::args().nth(1).ok_or("name the server's data folder")?);
    let server = ClientOptions::new("127.0.0.1:7443".parse()?, Trust::of_data(&data)?);
    let me = PublisherOptions { source_id: 42, session: 1, name: "example".into(), ..Default::default() };
    let publisher = Publisher::connect(server, me).await?;

    let keys = [publisher.define("BTCUSD")?, publisher.define("ETHUSD")?];
    let start = 1_767_571_200_000_000_000;
    for second in 0..600u64 {
        // A batch at a time; `send` waits when the server cannot keep up.
        let trades = keys.map(|key| {
            let price = Price(100_000_000_000 + (second * 7 % 13) as i64 * 1_000_000);
            Event::trade(start + second * 100_000_000, key, 0, price, Size(5_000_000), flag::BUY)
        });
        publisher.send(&trades).await?;
    }
    let stats = publisher.finish().await?;
    println!("{} events, acknowledged up to {}, {} skipped", stats.offered, stats.acked, stats.skipped);
    Ok(())
}
