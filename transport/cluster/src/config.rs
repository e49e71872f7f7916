//! A cluster on disk: who its nodes are, and the folder that each of them needs.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tidegate_quic::certs::{self, CertsError, CertsRequest, PeerRequest};
use tidegate_quic::tls::{DEV_NAMES, Identity, TlsError, Trust};
use tidegate_replica::{Book, GroupId, Layout, NodeId, Place};

/// The file that says who is in the cluster.
const FILE: &str = "cluster.json";
/// Version of that file: the second says that nodes hold some groups only, which nodes of the version before would not know.
const VERSION: u32 = 1;
const VERSION_COPIES: u32 = 2;
/// Of a node that copies came to or went from: as the cluster began does not say what it holds.
const VERSION_MOVED: u32 = 3;
pub use tidegate_replica::NODES_MAX;
/// Least and most members that may be needed to commit.
const MIN_ISR: (usize, usize) = (1, NODES_MAX);
/// Most groups: a node has a log, shards and threads for each.
pub const GROUPS_MAX: GroupId = 64;

/// Why there is no cluster, or no node of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A file cannot be read or written.
    #[error("cannot {act} `{}`", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The cluster's file holds something else.
    #[error("`{}` describes no cluster", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The cluster's file is of another version.
    #[error("`{}` is of version {found}, allowed are {VERSION} to {VERSION_MOVED}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// As it says.
        found: u32,
    },
    /// The folder is not that of a node.
    #[error("`{}` is no node's folder: `tidegate cluster init` makes one for each node beside it", path.display())]
    NoNode {
        /// The folder.
        path: PathBuf,
    },
    /// The node has left its cluster.
    #[error("node {node} has left its cluster, and its number is not used again: `{}` is of no use any more", path.display())]
    Left {
        /// Which.
        node: NodeId,
        /// Its folder.
        path: PathBuf,
    },
    /// Another process has the folder.
    #[error("`{}` is in use by another process", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// What is in the folder was computed with something else, and cannot be computed again.
    #[error(
        "the snapshots in `{}` were taken with other streams or settings, and the log begins behind them: nothing was changed; start the node \
         with those it had",
        path.display()
    )]
    Settings {
        /// The folder of the snapshots.
        path: PathBuf,
    },
    /// What was asked for makes no cluster.
    #[error("{0}")]
    Asked(String),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Certificates that are to be made.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// What consensus keeps cannot be used.
    #[error("the metadata in `{}` cannot be used", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// Consensus did not start.
    #[error("consensus on metadata did not start: {0}")]
    Consensus(String),
    /// The address for other nodes cannot be listened on.
    #[error("cannot listen on {address} for other nodes")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The system refused threads.
    #[error("no threads for the cluster")]
    Threads(#[source] std::io::Error),
    /// No node answers.
    #[error("no node of the cluster answers ({0})")]
    Silent(String),
    /// The cluster refused a command.
    #[error("the cluster refuses: {0}")]
    Refused(String),
}

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlace {
    /// For other nodes.
    pub peers: SocketAddr,
    /// For feeds and subscribers.
    pub clients: SocketAddr,
}

/// What a cluster is to be, from its beginning on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Replicas needed to commit, 1 to as many as there are nodes.
    pub min_isr: usize,
    /// Groups that the slots are divided among.
    pub groups: GroupId,
    /// Whether a node counts, and acknowledges, only what it has synced to its disk.
    pub durable: bool,
    /// Nodes that hold each group; 0 for all.
    pub copies: usize,
}

/// A cluster, as a node or an operator knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    version: u32,
    /// The cluster's own number, in its certificates too.
    pub cluster: String,
    /// Replicas needed to commit.
    pub min_isr: usize,
    /// Groups that the slots are divided among when the cluster begins; each has a log and a leader of its own.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: GroupId,
    /// Whether a node counts, and acknowledges, only what it has synced to its disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
    /// Nodes that hold each group, where that is not all of them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub copies: usize,
    /// What failed together when the cluster began: where copies lie depends on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    founding_zones: BTreeMap<NodeId, String>,
    /// Which node's folder this is; none in the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// All nodes.
    pub nodes: BTreeMap<NodeId, NodePlace>,
    /// What fails together, for those of whom it was said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub zones: BTreeMap<NodeId, String>,
    /// Nodes that were in the cluster once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left: BTreeSet<NodeId>,
    /// The nodes that it began with, once there are others: what metadata begins with depends on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    founders: Option<BTreeMap<NodeId, NodePlace>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(copies: &usize) -> bool {
    *copies == 0
}

fn one() -> GroupId {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_one(groups: &GroupId) -> bool {
    *groups == 1
}

fn file<'p>(act: &'static str, path: &'p Path) -> impl FnOnce(std::io::Error) -> ClusterError + 'p {
    move |source| ClusterError::File { act, path: path.to_owned(), source }
}

impl ClusterConfig {
    /// Makes a cluster in `dir`: a CA and an operator's certificate there, and a folder for each node.
    ///
    /// # Errors
    /// [`ClusterError`] when the nodes make no cluster or there is one already.
    pub fn init(
        dir: &Path,
        nodes: BTreeMap<NodeId, NodePlace>,
        founding: Founding,
        days: u32,
        now_s: u64,
    ) -> Result<Self, ClusterError> {
        Self::found(dir, nodes, BTreeMap::new(), founding, (days, now_s))
    }

    /// The same, where it is known of some nodes what fails together; certificates are good for so many days from that second on.
    ///
    /// # Errors
    /// As [`ClusterConfig::init`].
    pub fn found(
        dir: &Path,
        nodes: BTreeMap<NodeId, NodePlace>,
        zones: BTreeMap<NodeId, String>,
        founding: Founding,
        (days, now_s): (u32, u64),
    ) -> Result<Self, ClusterError> {
        let Founding { min_isr, groups, durable, copies } = founding;
        let asked = |text: String| Err(ClusterError::Asked(text));
        if nodes.is_empty() || nodes.len() > NODES_MAX {
            return asked(format!("{} nodes, allowed are 1 to {NODES_MAX}", nodes.len()));
        }
        if !(MIN_ISR.0..=nodes.len()).contains(&min_isr) {
            let most = nodes.len();
            return asked(format!("{min_isr} replicas are to commit, allowed are 1 to {most}"));
        }
        if !(1..=GROUPS_MAX).contains(&groups) {
            return asked(format!("{groups} groups, allowed are 1 to {GROUPS_MAX}"));
        }
        if copies > 0 && !(min_isr..=nodes.len()).contains(&copies) {
            let (least, most) = (min_isr, nodes.len());
            return asked(format!(
                "each group is to be held by {copies} nodes, allowed are {least}, as many as must have an event before it is committed, to {most}, as many as there are"
            ));
        }
        // Where all hold all, nothing is different from a cluster of which it was not said.
        let copies = if copies == nodes.len() { 0 } else { copies };
        if copies > 0 && usize::from(groups) * copies < nodes.len() {
            let (least, count) = (nodes.len().div_ceil(copies), nodes.len());
            return asked(format!(
                "{groups} groups of {copies} copies leave some of {count} nodes without any: allowed are {least} groups or more"
            ));
        }
        if let Some(node) = zones.keys().find(|node| !nodes.contains_key(node)) {
            return asked(format!("node {node} has a zone, and is not in the cluster"));
        }
        if nodes.contains_key(&0) {
            return asked("node 0: nodes are numbered from 1".to_owned());
        }
        let mut addresses = BTreeSet::new();
        for (node, place) in &nodes {
            for address in [place.peers, place.clients] {
                if address.port() == 0 || address.ip().is_unspecified() || !addresses.insert(address) {
                    let why = "others must reach it there, and it must be nobody else's";
                    return asked(format!("node {node} is at {address}: {why}"));
                }
            }
        }
        let path = dir.join(FILE);
        if path.exists() {
            return asked(format!("`{}` is a cluster's folder already", dir.display()));
        }
        let none = CertsRequest { hosts: Vec::new(), clients: Vec::new(), days, force: false };
        certs::init(dir, &none, now_s)?;
        let ca = dir.join(certs::CA_CERT);
        let random = std::fs::read(&ca).map_err(file("read", &ca))?;
        // The CA is like no other, so its fingerprint names the cluster.
        let cluster = fingerprint(&random);
        let config = Self {
            version: if copies > 0 { VERSION_COPIES } else { VERSION },
            cluster,
            min_isr,
            groups,
            durable,
            copies,
            founding_zones: zones.clone(),
            node: None,
            nodes,
            zones,
            left: BTreeSet::new(),
            founders: None,
        };
        let operator = PeerRequest {
            out: dir.to_owned(),
            names: vec![config.operator_name()],
            file: "operator",
            days,
            force: false,
        };
        certs::peer(dir, &operator, now_s)?;
        for &node in config.nodes.keys() {
            config.make_node(dir, node, days, now_s, false)?;
        }
        config.write(dir)?;
        Ok(config)
    }

    /// Makes the folder of a node beside the CA: a certificate, and who is in the cluster.
    fn make_node(
        &self,
        dir: &Path,
        node: NodeId,
        days: u32,
        now_s: u64,
        force: bool,
    ) -> Result<PathBuf, ClusterError> {
        let out = dir.join(format!("node-{node}"));
        let ca = dir.join(certs::CA_CERT);
        let mut names = vec![self.node_name(node)];
        names.extend(DEV_NAMES.map(str::to_owned));
        for address in self.nodes.get(&node).iter().flat_map(|place| [place.peers, place.clients]) {
            let ip = address.ip().to_string();
            if !names.contains(&ip) {
                names.push(ip);
            }
        }
        let request = PeerRequest { out: out.clone(), names, file: "node", days, force };
        certs::peer(dir, &request, now_s)?;
        let copy = out.join(certs::CA_CERT);
        std::fs::copy(&ca, &copy).map_err(file("write", &copy))?;
        Self { node: Some(node), ..self.clone() }.write(&out)?;
        Ok(out)
    }

    /// Makes the folder of a node that is to join, in the operator's folder. One that was made for it before stays as it is.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no CA, or the folder is another one's.
    pub fn add_node(
        &self,
        dir: &Path,
        node: NodeId,
        place: NodePlace,
        days: u32,
        now_s: u64,
    ) -> Result<PathBuf, ClusterError> {
        let out = dir.join(format!("node-{node}"));
        let with = self.with(node, place);
        if !out.join(FILE).exists() {
            // The file is written last: whatever else is there was not finished.
            return with.make_node(dir, node, days, now_s, true);
        }
        let found = Self::read(&out)?;
        if found.cluster != self.cluster || found.node != Some(node) || found.nodes.get(&node) != Some(&place)
        {
            let why = format!("`{}` is there already, and is of something else: move it away", out.display());
            return Err(ClusterError::Asked(why));
        }
        // Others may have come or gone since.
        Self { node: Some(node), ..with }.write(&out)?;
        Ok(out)
    }

    #[cfg(test)]
    fn nodes_as_places(&self) -> BTreeMap<NodeId, Place> {
        Self { founders: None, ..self.clone() }.founders()
    }

    fn with(&self, node: NodeId, place: NodePlace) -> Self {
        let mut with = self.clone();
        with.founders.get_or_insert_with(|| self.nodes.clone());
        with.nodes.insert(node, place);
        with
    }

    /// How the groups lie when the cluster begins: every node holds all of them or as many as any other, and leads as many, to within one.
    pub(crate) fn layout(&self) -> Layout {
        let nodes: Vec<NodeId> = self.founders().into_keys().collect();
        let (zones, copies) = (self.founding_zones.clone(), self.copies);
        Layout { groups: self.groups.into(), min_isr: self.min_isr, zones, copies, ..Layout::of(&nodes) }
    }

    /// The groups that a node holds, by number. Whoever joins a cluster whose nodes hold some groups only holds none.
    #[must_use]
    pub fn held(&self, node: NodeId) -> Vec<bool> {
        if self.copies == 0 {
            return vec![true; self.groups.into()];
        }
        self.layout().place().iter().map(|holders| holders.contains(&node)).collect()
    }

    /// The nodes that the cluster began with, as metadata has them.
    pub(crate) fn founders(&self) -> BTreeMap<NodeId, Place> {
        let founders = self.founders.as_ref().unwrap_or(&self.nodes);
        let place = |(&node, place): (&NodeId, &NodePlace)| {
            let zone = self.founding_zones.get(&node).cloned();
            (node, Place { peers: place.peers, clients: place.clients, zone })
        };
        founders.iter().map(place).collect()
    }

    /// With what an address book says: who is in it is added, who has left is left out. Nothing if that is known already. An older book
    /// takes nobody away.
    #[must_use]
    pub fn following(&self, book: &Book) -> Option<Self> {
        let mut new = self.clone();
        new.left.extend(&book.left);
        for (&node, place) in book.places.iter().filter(|(node, _)| !self.left.contains(node)) {
            new.nodes.insert(node, NodePlace { peers: place.peers, clients: place.clients });
            match &place.zone {
                Some(zone) => new.zones.insert(node, zone.clone()),
                None => new.zones.remove(&node),
            };
        }
        let ClusterConfig { nodes, zones, left, node: me, .. } = &mut new;
        // Who it is itself stays known, so that it can say that it has left.
        nodes.retain(|node, _| !left.contains(node) || *me == Some(*node));
        zones.retain(|node, _| nodes.contains_key(node));
        if new == *self {
            return None;
        }
        new.founders.get_or_insert_with(|| self.nodes.clone());
        Some(new)
    }

    /// For a folder that nodes of an earlier version must not take for theirs, as copies moved. Nothing if it is that already.
    pub(crate) fn moved(&self) -> Option<Self> {
        (self.version < VERSION_MOVED).then(|| Self { version: VERSION_MOVED, ..self.clone() })
    }

    /// Writes the file of a folder anew: all of it, or nothing.
    ///
    /// # Errors
    /// [`ClusterError::File`].
    pub fn write(&self, dir: &Path) -> Result<(), ClusterError> {
        let path = dir.join(FILE);
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|source| ClusterError::Parse { path: path.clone(), source })?;
        text.push('\n');
        replace(&path, text.as_bytes()).map_err(file("write", &path))
    }

    /// Reads a folder, a node's or the operator's.
    ///
    /// # Errors
    /// [`ClusterError`] when it is none.
    pub fn read(dir: &Path) -> Result<Self, ClusterError> {
        let path = dir.join(FILE);
        let text = std::fs::read(&path).map_err(file("read", &path))?;
        let config: Self = serde_json::from_slice(&text)
            .map_err(|source| ClusterError::Parse { path: path.clone(), source })?;
        if !(VERSION..=VERSION_MOVED).contains(&config.version) {
            return Err(ClusterError::Version { path, found: config.version });
        }
        let named = |node: &NodeId| config.nodes.contains_key(node);
        if config.nodes.is_empty()
            || config.nodes.len() > NODES_MAX
            || !(MIN_ISR.0..=MIN_ISR.1).contains(&config.min_isr)
            || !(1..=GROUPS_MAX).contains(&config.groups)
            || (config.copies > 0 && config.copies < config.min_isr)
            || !config.node.as_ref().is_none_or(named)
        {
            return Err(ClusterError::Asked(format!("the nodes in `{}` make no cluster", path.display())));
        }
        Ok(config)
    }

    /// Which node's folder this is, and where it is.
    ///
    /// # Errors
    /// [`ClusterError::NoNode`] for the operator's folder.
    pub fn here(&self, dir: &Path) -> Result<(NodeId, NodePlace), ClusterError> {
        let node = self.node.ok_or_else(|| ClusterError::NoNode { path: dir.to_owned() })?;
        if self.left.contains(&node) {
            return Err(ClusterError::Left { node, path: dir.to_owned() });
        }
        self.nodes
            .get(&node)
            .map(|place| (node, *place))
            .ok_or_else(|| ClusterError::NoNode { path: dir.to_owned() })
    }

    /// The name in a node's certificate.
    #[must_use]
    pub fn node_name(&self, node: NodeId) -> String {
        format!("node-{node}.{}.tidegate", self.cluster)
    }

    fn operator_name(&self) -> String {
        format!("operator.{}.tidegate", self.cluster)
    }

    /// Whom a certificate names, if it is somebody of this cluster.
    pub(crate) fn who(&self, names: &[String]) -> Option<Who> {
        if names.contains(&self.operator_name()) {
            return Some(Who::Operator);
        }
        let known = self.nodes.keys().chain(&self.left).collect::<BTreeSet<_>>();
        let mut nodes = known.into_iter().filter(|node| names.contains(&self.node_name(**node)));
        // One certificate, one node.
        let node = nodes.next().filter(|_| nodes.next().is_none())?;
        Some(if self.left.contains(node) { Who::Left(*node) } else { Who::Node(*node) })
    }

    /// The certificate to show, and whom to believe.
    ///
    /// # Errors
    /// [`TlsError`] when the files cannot be used.
    pub fn identity(&self, dir: &Path) -> Result<(Identity, Trust), TlsError> {
        let name = if self.node.is_some() { "node" } else { "operator" };
        let identity =
            Identity::of_files(&dir.join(format!("{name}-cert.pem")), &dir.join(format!("{name}-key.pem")))?;
        Ok((identity, Trust::of_file(&dir.join(certs::CA_CERT))?))
    }
}

/// Whom a link is with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Node(NodeId),
    /// A node that has left.
    Left(NodeId),
    Operator,
}

/// 64 bits of what names bytes, in hexadecimal.
fn fingerprint(bytes: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(bytes))
}

/// Puts a file in place of what is there, for good; a crash leaves one or the other.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let new = path.with_extension("new");
    let mut out = std::fs::File::create(&new)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Which start of a node this is: 1 for the first, and one more each time, on disk before it is used.
pub(crate) struct Incarnations(PathBuf);

impl Incarnations {
    pub(crate) fn of(dir: &Path) -> Self {
        Self(dir.join("incarnation"))
    }

    /// The last, 0 before the first start.
    pub(crate) fn last(&self) -> Result<u64, ClusterError> {
        match std::fs::read_to_string(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(file("read", &self.0)(error)),
            Ok(text) => text
                .trim()
                .parse()
                .map_err(|_| ClusterError::Asked(format!("`{}` holds no incarnation", self.0.display()))),
        }
    }

    /// Notes one, for good.
    pub(crate) fn note(&self, incarnation: u64) -> Result<(), ClusterError> {
        replace(&self.0, format!("{incarnation}\n").as_bytes()).map_err(file("write", &self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founding(min_isr: usize, groups: GroupId) -> Founding {
        Founding { min_isr, groups, durable: false, copies: 0 }
    }

    fn place(port: u16) -> NodePlace {
        let at = |port| ([127, 0, 0, 1], port).into();
        NodePlace { peers: at(port), clients: at(port + 100) }
    }

    #[test]
    fn a_cluster_is_made_once_and_each_node_knows_who_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let nodes: BTreeMap<NodeId, NodePlace> =
            [(1, place(7501)), (2, place(7502)), (3, place(7503))].into();
        let config =
            ClusterConfig::init(dir.path(), nodes.clone(), founding(2, 1), 30, 1_700_000_000).unwrap();
        let again = ClusterConfig::init(dir.path(), nodes, founding(2, 1), 30, 1_700_000_000).unwrap_err();
        assert!(again.to_string().contains("already"), "{again}");
        assert!(matches!(config.here(dir.path()), Err(ClusterError::NoNode { .. })));
        for node in 1..=3 {
            let folder = dir.path().join(format!("node-{node}"));
            let read = ClusterConfig::read(&folder).unwrap();
            assert_eq!(read.here(&folder).unwrap(), (node, place(7500 + node)));
            read.identity(&folder).unwrap();
        }
        let name = |node| config.node_name(node);
        assert_eq!(config.who(&[name(2), "localhost".to_owned()]), Some(Who::Node(2)));
        assert_eq!(config.who(&[name(1), name(2)]), None, "one certificate for two nodes");
        assert_eq!(config.who(&[name(4)]), None);
        assert_eq!(config.who(&["node-1.0000000000000000.tidegate".to_owned()]), None, "another cluster's");
    }

    #[test]
    fn what_makes_no_cluster_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let of = |nodes: &[(NodeId, NodePlace)], min_isr, groups| {
            let nodes = nodes.iter().copied().collect();
            ClusterConfig::init(dir.path(), nodes, founding(min_isr, groups), 30, 0).unwrap_err().to_string()
        };
        let refused = |nodes: &[(NodeId, NodePlace)], min_isr| of(nodes, min_isr, 1);
        assert_eq!(refused(&[], 1), "0 nodes, allowed are 1 to 15");
        assert_eq!(refused(&[(1, place(7501))], 2), "2 replicas are to commit, allowed are 1 to 1");
        assert_eq!(refused(&[(0, place(7501))], 1), "node 0: nodes are numbered from 1");
        let twice = refused(&[(1, place(7501)), (2, place(7501))], 2);
        assert!(twice.starts_with("node 2 is at 127.0.0.1:7501"), "{twice}");
        for groups in [0, 65] {
            let refused = of(&[(1, place(7501))], 1, groups);
            assert_eq!(refused, format!("{groups} groups, allowed are 1 to 64"));
        }
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing was written");
    }

    #[test]
    fn groups_are_written_where_there_are_several() {
        let dir = tempfile::tempdir().unwrap();
        let nodes: BTreeMap<NodeId, NodePlace> = [(1, place(7_501)), (2, place(7_502))].into();
        let config =
            ClusterConfig::init(dir.path(), nodes.clone(), founding(1, 4), 30, 1_700_000_000).unwrap();
        let folder = dir.path().join("node-2");
        assert_eq!(ClusterConfig::read(&folder).unwrap().groups, 4);
        let meta = tidegate_replica::Meta::laid_out(&config.layout(), tidegate_replica::Rules::default());
        let leads =
            |node| meta.groups.iter().filter(|of| of.leader.is_some_and(|led| led.node == node)).count();
        assert_eq!([leads(1), leads(2)], [2, 2]);
        let other = tempfile::tempdir().unwrap();
        ClusterConfig::init(other.path(), nodes, founding(1, 1), 30, 1_700_000_000).unwrap();
        let text = std::fs::read_to_string(other.path().join(FILE)).unwrap();
        assert!(!text.contains("groups"), "as before there were several: {text}");
        let many = text.replace("\"min_isr\": 1,", "\"min_isr\": 1, \"groups\": 65,");
        std::fs::write(other.path().join(FILE), many).unwrap();
        assert!(matches!(ClusterConfig::read(other.path()), Err(ClusterError::Asked(_))));
    }

    #[test]
    fn copies_lie_on_some_nodes_and_what_cannot_be_is_refused() {
        let nodes = |count: u16| (1..=count).map(|node| (node, place(7_500 + node))).collect();
        let of = |min_isr, groups, copies| Founding { min_isr, groups, durable: false, copies };
        let make = |founding, zones: &[(NodeId, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            let zones = zones.iter().map(|(node, zone)| (*node, (*zone).to_owned())).collect();
            let made = ClusterConfig::found(dir.path(), nodes(4), zones, founding, (30, 1_700_000_000));
            made.map(|config| (ClusterConfig::read(&dir.path().join("node-2")).unwrap(), config))
        };
        let refused =
            |min_isr, groups, copies| make(of(min_isr, groups, copies), &[]).unwrap_err().to_string();
        for copies in [1, 5] {
            let words = refused(2, 4, copies);
            assert!(words.contains(&format!("held by {copies} nodes, allowed are 2,")), "{words}");
        }
        assert!(refused(2, 1, 3).contains("allowed are 2 groups or more"));
        assert!(make(of(2, 4, 2), &[(9, "a")]).unwrap_err().to_string().contains("node 9"));
        let (all, _) = make(of(2, 4, 4), &[]).unwrap();
        assert_eq!((all.version, all.copies, all.held(2)), (VERSION, 0, vec![true; 4]));

        let zones = [(1, "a"), (2, "a"), (3, "b"), (4, "b")];
        let (mut some, founder) = make(of(2, 6, 2), &zones).unwrap();
        assert_eq!((some.version, some.copies), (VERSION_COPIES, 2));
        let zone = |node: &NodeId| *node <= 2;
        for holders in some.layout().place() {
            assert!(holders.len() == 2 && zone(&holders[0]) != zone(&holders[1]), "{holders:?}");
        }
        let held = |config: &ClusterConfig| (1..=4).map(|node| config.held(node)).collect::<Vec<_>>();
        assert!(held(&some).iter().all(|held| held.iter().filter(|held| **held).count() == 3));
        // Whatever is said of zones later on, and whoever comes: copies stay where they are.
        let before = held(&some);
        let mut book = Book { places: founder.founders(), ..Book::default() };
        assert_eq!(some.following(&book), None, "zones are known to metadata from the beginning");
        book.places.get_mut(&1).unwrap().zone = Some("c".to_owned());
        book.places.insert(5, Place { zone: None, peers: place(7_505).peers, clients: place(7_505).clients });
        some = some.following(&book).unwrap();
        assert_eq!((held(&some), some.held(5)), (before, vec![false; 6]));
    }

    #[test]
    fn incarnations_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let incarnations = Incarnations::of(dir.path());
        assert_eq!(incarnations.last().unwrap(), 0);
        incarnations.note(7).unwrap();
        assert_eq!(Incarnations::of(dir.path()).last().unwrap(), 7);
        std::fs::write(dir.path().join("incarnation"), "x").unwrap();
        assert!(incarnations.last().is_err());
    }

    #[test]
    fn a_folder_follows_who_comes_and_goes_and_keeps_who_began() {
        let dir = tempfile::tempdir().unwrap();
        let nodes: BTreeMap<NodeId, NodePlace> = [(1, place(7_501)), (2, place(7_502))].into();
        let config =
            ClusterConfig::init(dir.path(), nodes.clone(), founding(2, 1), 30, 1_700_000_000).unwrap();
        let mut book = Book { places: config.founders(), ..Book::default() };
        assert_eq!(config.following(&book), None, "nothing new");
        let made = config.add_node(dir.path(), 3, place(7_503), 30, 1_700_000_000).unwrap();
        let certificate = std::fs::read(made.join("node-cert.pem")).unwrap();
        let joiner = ClusterConfig::read(&made).unwrap();
        assert_eq!(joiner.here(&made).unwrap(), (3, place(7_503)));
        assert_eq!(
            joiner.founders().keys().copied().collect::<Vec<_>>(),
            [1, 2],
            "it did not begin the cluster"
        );
        assert_eq!(config.add_node(dir.path(), 3, place(7_503), 30, 1_700_000_000).unwrap(), made);
        assert_eq!(std::fs::read(made.join("node-cert.pem")).unwrap(), certificate, "it may have it already");
        let elsewhere = config.add_node(dir.path(), 3, place(7_509), 30, 1_700_000_000).unwrap_err();
        assert!(elsewhere.to_string().contains("something else"), "{elsewhere}");
        // One that was not finished is made anew.
        std::fs::remove_file(made.join(FILE)).unwrap();
        config.add_node(dir.path(), 3, place(7_503), 30, 1_700_000_000).unwrap();

        let third = Place {
            zone: Some("east".to_owned()),
            ..joiner.with(3, place(7_503)).nodes_as_places()[&3].clone()
        };
        book.places.insert(3, third);
        let three = config.following(&book).unwrap();
        assert_eq!((three.nodes.len(), three.zones[&3].as_str()), (3, "east"));
        book.places.remove(&1);
        book.left.insert(1);
        let two = three.following(&book).unwrap();
        assert_eq!(two.nodes.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(two.founders(), config.founders());
        assert_eq!(two.who(&[config.node_name(1)]), Some(Who::Left(1)));
        // An older book, as it is read from the log after a start, brings nobody back.
        assert_eq!(two.following(&Book { places: config.founders(), ..Book::default() }), None);
        let first = dir.path().join("node-1");
        let gone = ClusterConfig::read(&first).unwrap().following(&book).unwrap();
        gone.write(&first).unwrap();
        let refused = ClusterConfig::read(&first).unwrap().here(&first).unwrap_err();
        assert!(matches!(refused, ClusterError::Left { node: 1, .. }), "{refused}");
    }
}
