//! Topics of Kafka as an input of `publish` and an output of `subscribe`, where the program was built for it.

use crate::cli::PublishArgs;
use crate::exit::{Failure, Outcome};
use crate::render::Ui;
use crate::subscribe::Sink;
use std::path::PathBuf;

const SCHEME: &str = "kafka://";

/// The topic, if that is what is to be published.
pub(crate) fn named(files: &[PathBuf]) -> Result<Option<&str>, Failure> {
    let mut topics = files.iter().filter_map(|file| file.to_str()).filter(|file| file.starts_with(SCHEME));
    match topics.next() {
        Some(_) if files.len() > 1 => Err(Failure::usage(
            "a topic stands alone: it has no end to merge other inputs with; start one `publish` for each",
        )),
        topic => Ok(topic),
    }
}

#[cfg(not(feature = "kafka"))]
mod without {
    use super::{Failure, Outcome, PublishArgs, Sink, Ui};

    fn absent() -> Failure {
        Failure::usage(
            "this program was built without Kafka; build it with `cargo build --release --features kafka`",
        )
    }

    pub(crate) fn publish(_: &PublishArgs, _: &str, _: &Ui) -> Outcome {
        Err(absent())
    }

    pub(crate) fn writer(_: &str, _: &[(String, String)]) -> Result<Box<dyn Sink>, Failure> {
        Err(absent())
    }
}

#[cfg(not(feature = "kafka"))]
pub(crate) use without::{publish, writer};

#[cfg(feature = "kafka")]
pub(crate) use with::{publish, writer};

#[cfg(feature = "kafka")]
mod with {
    use super::{Failure, Outcome, PublishArgs, SCHEME, Sink, Ui};
    use crate::cli::{AckArg, BeginArg};
    use crate::exit::Exit;
    use crate::interrupt::Interrupt;
    use crate::place;
    use crate::progress::Bar;
    use crate::publish::{self, Out};
    use crate::render::thousands;
    use crate::stdin::Pipe;
    use std::time::{Duration, Instant};
    use tidegate_engine::name_hash;
    use tidegate_kafka::{Begin, ChunkLimits, KafkaError, TopicOptions, TopicReader, TopicUrl, TopicWriter};
    use tidegate_quic::{PublishStats, Publisher};

    /// How long brokers may take to answer.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// What is read of a topic at a time, and so the most that is read twice after a crash.
    const CHUNK_MESSAGES: u64 = 1_000_000;
    const CHUNK_AGE: Duration = Duration::from_secs(60);

    fn topic(url: &str, client: &[(String, String)]) -> Result<TopicOptions, Failure> {
        let url: TopicUrl = url.parse().map_err(|error| Failure::new(Exit::Usage, error))?;
        Ok(TopicOptions { url, patience: PATIENCE, client: client.iter().cloned().collect() })
    }

    fn failure(exit: Exit, error: KafkaError) -> Failure {
        let asked = matches!(error, KafkaError::Options(_) | KafkaError::Partition { .. });
        Failure::new(if asked { Exit::Usage } else { exit }, error)
    }

    pub(crate) fn publish(args: &PublishArgs, url: &str, ui: &Ui) -> Outcome {
        let to = &args.to;
        // A chunk is remembered as taken once the server has acknowledged it, as the same run if it has to come again.
        if to.datagrams || to.ack == AckArg::None {
            return Err(Failure::usage(
                "a topic is read on where acknowledgements stand: --datagrams and --ack none have none",
            ));
        }
        if to.session.is_some() {
            return Err(Failure::usage(
                "--session follows from where in the topic a run begins, and cannot be said",
            ));
        }
        let options = topic(url, &args.topic.kafka_client)?;
        let client = place::client(&to.server)?;
        let place = options.url.topic.clone();
        let name = match (&to.name, options.url.partition) {
            (Some(name), _) => name.clone(),
            (None, partition) => format!("kafka.{place}.{}", partition.unwrap_or(0)),
        };
        let begin = match args.topic.begin {
            BeginArg::Oldest => Begin::Oldest,
            BeginArg::Newest => Begin::Newest,
        };
        let input = |error| failure(Exit::Input, error);
        let mut reader = TopicReader::open(options, &format!("tidegate.{name}"), begin).map_err(input)?;
        // From here on Ctrl-C ends it in order; whoever waits for brokers that are not there is let go at once.
        let interrupt = Interrupt::listen()?;
        if reader.removed() > 0 {
            ui.note(&format!(
                "{} messages were removed from the topic before they were read: its retention is too short",
                thousands(reader.removed())
            ));
        }
        let limits = ChunkLimits {
            messages: CHUNK_MESSAGES,
            age: CHUNK_AGE,
            idle: args.topic.idle_exit.map(Duration::from_nanos),
        };
        let network = publish::network()?;
        let bar = Bar::new(ui, "publishing", 0);
        let (start, mut held) = (Instant::now(), Duration::ZERO);
        let (mut sum, mut refused, mut left) = (PublishStats::default(), 0, to.count.unwrap_or(u64::MAX));
        let outcome = network.block_on(async {
            loop {
                let chunk = reader.chunk(args.topic.header.as_deref(), limits).map_err(input)?;
                let progress = chunk.progress();
                let pipe = Pipe::read(Box::new(chunk), url, args.read.options())
                    .map_err(|error| Failure::internal(format!("no thread to read the topic: {error}")))?;
                // Read otherwise it is another run: events of one must not be counted as those of the other.
                let session = format!(
                    "{SCHEME}{place} {} {} {} {:?} {:?}",
                    reader.partition(),
                    reader.at(),
                    reader.run(),
                    args.topic.header,
                    args.read
                );
                let feed = publish::feed(to, &name, name_hash(session.as_bytes()));
                let publisher = Publisher::connect(client.clone(), feed).await.map_err(place::failure)?;
                let mut out = Out::new(publisher, to.speed, left, start, &interrupt, &bar);
                let piped = out.pipe(&pipe).await?;
                refused += piped.refused;
                (left, held) = (out.left, held + out.held);
                // All of it is acknowledged behind this.
                let stats = out.publisher.finish().await.map_err(place::failure)?;
                sum = PublishStats {
                    offered: sum.offered + stats.offered,
                    skipped: sum.skipped + stats.skipped,
                    acked: sum.acked + stats.acked,
                    connections: sum.connections + stats.connections,
                    lost_by_server: sum.lost_by_server + stats.lost_by_server,
                    ..stats
                };
                match piped.end {
                    None => return Ok(()),
                    // A chunk in which nothing came is no input of any format.
                    Some(Err(_)) if progress.messages() == 0 && progress.was_idle() => return Ok(()),
                    Some(Err(error)) => return Err(error.into()),
                    // Taken for read it would be gone for good.
                    Some(Ok(())) if piped.refused > 0 && stats.offered == 0 => {
                        return Err(Failure::new(
                            Exit::Input,
                            anyhow::anyhow!(
                                "none of the {} messages from offset {} on is one: is it another format? (--format, --map, --header)",
                                progress.messages(),
                                reader.at()
                            ),
                        ));
                    }
                    Some(Ok(())) => reader.remember(progress.next()).map_err(input)?,
                }
                if progress.was_idle() {
                    return Ok::<(), Failure>(());
                }
            }
        });
        network.shutdown_timeout(Duration::from_secs(1));
        bar.clear();
        publish::tell_refused(ui, refused);
        outcome?;
        publish::tell(to, ui, sum, start.elapsed(), held, interrupt.raised());
        Ok(Exit::Ok)
    }

    pub(crate) fn writer(url: &str, client: &[(String, String)]) -> Result<Box<dyn Sink>, Failure> {
        let writer = TopicWriter::open(topic(url, client)?).map_err(|error| failure(Exit::Output, error))?;
        Ok(Box::new(writer))
    }

    impl Sink for TopicWriter {
        fn take(&mut self, key: &str, lines: &[u8]) -> Result<bool, Failure> {
            let line = lines.strip_suffix(b"\n").unwrap_or(lines);
            self.send(key, line).map_err(|error| failure(Exit::Output, error))?;
            Ok(true)
        }

        fn settle(&mut self) -> Result<bool, Failure> {
            TopicWriter::settle(self).map_err(|error| failure(Exit::Output, error))?;
            Ok(true)
        }
    }
}
