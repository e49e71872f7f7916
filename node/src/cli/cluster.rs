//! The options of `tidegate cluster`.

use super::{parse_every, parse_patience};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    pub(crate) what: ClusterCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// A folder with a CA, an operator's certificate, and a folder for each node, to be brought to its machine.
    Init(ClusterInitArgs),
    /// How each node stands, and each group: who leads, who is in sync, how far the log is.
    #[command(
        after_help = "Examples:\n  tidegate cluster status lab\n  tidegate cluster status lab/node-1 --json\n\nExits with 1 when a group has no leader."
    )]
    Status(ClusterStatusArgs),
    /// Take a new node in: make its folder and tell the cluster, which goes on meanwhile. The node counts once it is started and has
    /// everything. Again with another --zone, say where a node is.
    #[command(
        after_help = "Examples:\n  tidegate cluster join prod --node 4=10.0.0.4 --zone b --wait 60s\n  tidegate cluster join lab --node \
                      4=127.0.0.1:7504:7444"
    )]
    Join(ClusterJoinArgs),
    /// Let a node go, for good: others take up what it holds and lead what it leads first, and its process ends by itself.
    #[command(
        after_help = "Examples:\n  tidegate cluster leave prod --node 4 --dry-run\n  tidegate cluster leave prod --node 4\n  tidegate cluster \
                      leave prod --node 4 --force\n\nWhere nodes hold some groups only it waits until others have the copies. Broken off, it goes on \
                      where it was when it is said again."
    )]
    Leave(ClusterLeaveArgs),
    /// Let another node in sync lead; feeds follow by themselves.
    #[command(
        after_help = "Examples:\n  tidegate cluster move lab --to 2\n  tidegate cluster move prod --group 3 --to 2"
    )]
    Move(ClusterMoveArgs),
    /// Let each group be led by the node where that costs least to the busiest one: by what each group takes in while this looks on. Only
    /// moves that are worth it are made, and all of them may be undone with `move`. With --copies: let each node hold as many groups as any
    /// other, and each group be held by as many nodes as it should.
    #[command(
        after_help = "Examples:\n  tidegate cluster rebalance prod --dry-run\n  tidegate cluster rebalance prod --over 30s --gain 20 --moves 4\n  \
                      tidegate cluster rebalance prod --copies --dry-run\n  tidegate cluster rebalance prod --copies"
    )]
    Rebalance(ClusterRebalanceArgs),
    /// Let a node lead no more, as long as another one in sync can: it goes on to hold and apply everything. Before it is worked on, say.
    /// With --copies it holds nothing either, and relays all groups.
    #[command(
        after_help = "Examples:\n  tidegate cluster drain prod --node 2\n  tidegate cluster drain prod --node 2 --undo\n  tidegate cluster drain prod \
                      --node 2 --copies"
    )]
    Drain(ClusterDrainArgs),
    /// Go on with what one node has, when no node is left that has everything. What only others had is lost, and everybody is told by a
    /// new lineage.
    #[command(
        after_help = "Examples:\n  tidegate cluster promote-loss prod --to 2\n  tidegate cluster promote-loss prod --group 3 --to 2"
    )]
    PromoteLoss(ClusterMoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ClusterInitArgs {
    /// The folder to make.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// A node, its address, and its ports for other nodes and for feeds; again for each.
    #[arg(long, value_name = "ID=IP[:PORT[:PORT]]", value_parser = parse_node, required_unless_present = "local")]
    pub(crate) node: Vec<(u16, tidegate_cluster::NodePlace)>,
    /// So many nodes on this machine, on the ports 7501 and up for each other and 7441 and up for feeds.
    #[arg(long, value_name = "N", conflicts_with = "node", value_parser = clap::value_parser!(u16).range(1..=15))]
    pub(crate) local: Option<u16>,
    /// Nodes that must have an event before it is committed [default: a majority of those that hold it].
    #[arg(long, value_name = "N")]
    pub(crate) min_isr: Option<usize>,
    /// Groups that symbols are divided among, for good: each has a log and a leader of its own, so that several nodes lead. Every node
    /// needs threads for each.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) groups: u16,
    /// Nodes that hold each group, for good: its log, shards and snapshots. The others have its results from them, for readers of any node.
    /// [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) copies: Option<u16>,
    /// What fails together with a node, such as its rack or data centre: copies of a group lie in different ones, as far as there are any.
    #[arg(long, value_name = "ID=NAME", value_parser = parse_node_zone)]
    pub(crate) zone: Vec<(u16, String)>,
    /// A node counts, and acknowledges, only what it has synced to its disk: acks `committed` and `durable` outlive the power of all nodes
    /// at once, and take as long as the disks.
    #[arg(long)]
    pub(crate) durable: bool,
    /// How long certificates are good.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub(crate) days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterJoinArgs {
    /// The cluster's folder, with the key of its CA.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The node: a number that none had yet, its address, and its ports for other nodes and for feeds.
    #[arg(long, value_name = "ID=IP[:PORT[:PORT]]", value_parser = parse_node)]
    pub(crate) node: (u16, tidegate_cluster::NodePlace),
    /// What fails together with it, such as its rack or data centre.
    #[arg(long, value_name = "NAME", value_parser = parse_zone)]
    pub(crate) zone: Option<String>,
    /// Wait so long for it to be started and to have everything.
    #[arg(long, value_name = "TIME", value_parser = parse_patience)]
    pub(crate) wait: Option<u64>,
    /// How long its certificate is good.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub(crate) days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterLeaveArgs {
    /// The cluster's folder.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The node.
    #[arg(long, value_name = "ID")]
    pub(crate) node: u16,
    /// Though it does not answer, and will not come back.
    #[arg(long)]
    pub(crate) force: bool,
    /// Say which copies would go where, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterStatusArgs {
    /// The cluster's folder, or a node's.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The table as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterMoveArgs {
    /// The cluster's folder.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The node; with --slot or --key, the group.
    #[arg(long, value_name = "ID")]
    pub(crate) to: u16,
    /// The group that the node is to lead, where there are several.
    #[arg(long, value_name = "G", default_value_t = 0)]
    pub(crate) group: u16,
    /// Let this slot be another group's, with all its keys.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u16).range(0..4_096), conflicts_with_all = ["group", "key"])]
    pub(crate) slot: Option<u16>,
    /// The same, of the slot that this key is in.
    #[arg(long, value_name = "NAME", conflicts_with = "group")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterRebalanceArgs {
    /// The cluster's folder.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Say what would be moved, and move nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Look on for so long, to see what each group takes in.
    #[arg(long, value_name = "TIME", value_parser = parse_every, default_value = "5s")]
    pub(crate) over: u64,
    /// What a move must take off the busier of its two nodes, in hundredths of what a node has on average.
    #[arg(long, value_name = "PCT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(crate) gain: u64,
    /// Moves at most.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub(crate) moves: u16,
    /// The plan as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Move copies instead of leads: to groups that lack one, to zones that have none, and to who holds the least; and wait for them.
    #[arg(long, conflicts_with_all = ["over", "gain", "moves"])]
    pub(crate) copies: bool,
    /// Copies that are on their way are not to come any more, as when their node is gone.
    #[arg(long, requires = "copies", conflicts_with_all = ["dry_run", "json"])]
    pub(crate) stop: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterDrainArgs {
    /// The cluster's folder.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The node.
    #[arg(long, value_name = "ID")]
    pub(crate) node: u16,
    /// Let it lead again.
    #[arg(long)]
    pub(crate) undo: bool,
    /// Others take up what it holds, and this waits for them.
    #[arg(long, conflicts_with = "undo")]
    pub(crate) copies: bool,
    /// Say which copies would go where, and change nothing.
    #[arg(long, requires = "copies")]
    pub(crate) dry_run: bool,
}

fn parse_zone(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=32).contains(&text.len()) && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("1 to 32 letters, digits, dots, hyphens and underscores are allowed".to_owned())
    }
}

fn parse_node_zone(text: &str) -> Result<(u16, String), String> {
    let (node, zone) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is no zone of a node such as 1=east"))?;
    let node = node.parse().map_err(|_| format!("`{node}` is no number of a node"))?;
    Ok((node, parse_zone(zone)?))
}

/// Ports of a node unless told otherwise.
const PEERS_PORT: u16 = 7_500;
const CLIENTS_PORT: u16 = 7_443;

fn parse_node(text: &str) -> Result<(u16, tidegate_cluster::NodePlace), String> {
    let wrong =
        || format!("`{text}` is no node such as 1=10.0.0.1, 1=10.0.0.1:7500:7443 or 1=[::1]:7500:7443");
    let (node, place) = text.split_once('=').ok_or_else(wrong)?;
    let (ip, ports) = match place.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(wrong)?,
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let ip: std::net::IpAddr = ip.parse().map_err(|_| wrong())?;
    let mut ports = match ports.strip_prefix(':') {
        Some(ports) => ports.split(':').collect(),
        None if ports.is_empty() => Vec::new(),
        None => return Err(wrong()),
    }
    .into_iter();
    let mut port = |usual| ports.next().map_or(Ok(usual), |port| port.parse::<u16>().map_err(|_| wrong()));
    let (peers, clients) = (port(PEERS_PORT)?, port(CLIENTS_PORT)?);
    if ports.next().is_some() {
        return Err(wrong());
    }
    let place = tidegate_cluster::NodePlace { peers: (ip, peers).into(), clients: (ip, clients).into() };
    Ok((node.parse().map_err(|_| wrong())?, place))
}
