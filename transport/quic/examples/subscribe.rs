//! A reader: closed bars of a second as they come. `cargo run -p tidegate-quic --example subscribe -- DATA_DIR`
#![forbid(unsafe_code)]

use std::path::PathBuf;
use tidegate_engine::Price;
use tidegate_proto::subscription::{Keys, Start, Subscription};
use tidegate_quic::{ClientOptions, Subscriber, Trust, Update};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = PathBuf::from(std::env::args().nth(1).ok_or("name the server's data folder")?);
    let server = ClientOptions::new("127.0.0.1:7443".parse()?, Trust::of_data(&data)?);
    let wanted = Subscription {
        keys: Keys::of_patterns(["BTC*"]),
        start: Start::Snapshot,
        ..Subscription::to(["bars.1s"])
    };
    let mut subscriber = Subscriber::connect(server, "example", wanted).await?;
    while let Some(update) = subscriber.next().await? {
        match update {
            Update::Record { name, output, past, .. } => {
                let bar = output.bar();
                let when = if past { "before" } else { "live" };
                println!(
                    "{name} {} closed at {}, {} trades ({when})",
                    output.ts,
                    Price(bar.close),
                    bar.trades
                );
            }
            Update::Loss(loss) => println!("{} records missed: {:?}", loss.count, loss.cause),
            Update::Changed(close) => println!("{close}"),
            Update::Ended(close) => println!("the server ended it: {close}"),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
