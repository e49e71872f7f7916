//! Hosts of our own in network namespaces, the servers they run, and the recording of what passes between them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// What must be there, by the package that Debian has it in.
const TOOLS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("nginx", "nginx-light"),
    ("vsftpd", "vsftpd"),
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("dnsmasq", "dnsmasq-base"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
];

/// The namespaces: a switch that all others hang on, the way out with the world behind it, servers, people, attackers.
pub(crate) const SWITCH: &str = "switch";
pub(crate) const WORLD: &str = "world";
pub(crate) const SERVERS: &str = "servers";
pub(crate) const PEOPLE: &str = "people";
pub(crate) const ATTACKERS: &str = "attackers";

/// Network of the site, by its first two numbers.
const SITE: &str = "10.77";

/// Last numbers of the addresses that each namespace has in `10.77.0.0/16`.
const HOSTS: [(&str, std::ops::RangeInclusive<u32>); 4] =
    [(WORLD, 1..=1), (SERVERS, 20..=39), (PEOPLE, 10..=16), (ATTACKERS, 101..=129)];

/// How long a server may take to listen.
const READY: Duration = Duration::from_secs(20);

/// The network; taken down when dropped.
pub(crate) struct Lab {
    prefix: String,
    folder: tempfile::TempDir,
    servers: Vec<(String, Child)>,
    /// With what it says.
    tcpdump: Option<(Child, BufReader<ChildStderr>)>,
}

/// Where a program is; servers are not on everybody's path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/local/sbin"]);
    folders.map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Why no such network can be made here, if it cannot.
pub(crate) fn obstacle() -> Option<String> {
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| program(tool).is_none()).map(|t| t.1).collect();
    if !missing.is_empty() {
        return Some(format!("not found, by the names of Debian's packages: {}", missing.join(" ")));
    }
    let probe = format!("tidegate-{}-probe", std::process::id());
    let made = run(Command::new("ip").args(["netns", "add", &probe])).and_then(|_| {
        run(Command::new("ip").args(["-n", &probe, "link", "add", "name", "br0", "type", "bridge"]))
    });
    let _ = run(Command::new("ip").args(["netns", "del", &probe]));
    made.err().map(|why| format!("network namespaces are not allowed ({why})"))
}

impl Lab {
    /// Makes the hosts and starts their servers.
    pub(crate) fn new() -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("tidegate-lab").tempdir().map_err(|e| e.to_string())?;
        let prefix = format!("tidegate-{}", std::process::id());
        let mut lab = Self { prefix, folder, servers: Vec::new(), tcpdump: None };
        lab.cable()?;
        lab.write_files().map_err(|error| format!("{}: {error}", lab.folder.path().display()))?;
        lab.serve()?;
        Ok(lab)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn space(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn ip(&self, name: &str, line: &str) -> Result<(), String> {
        run(Command::new("ip").args(["-n", &self.space(name)]).args(line.split(' '))).map(drop)
    }

    /// A command in a namespace.
    pub(crate) fn inside(&self, name: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(name)]).stdin(Stdio::null());
        command
    }

    fn cable(&self) -> Result<(), String> {
        for name in [SWITCH, WORLD, SERVERS, PEOPLE, ATTACKERS] {
            run(Command::new("ip").args(["netns", "add", &self.space(name)]))?;
            self.ip(name, "link set lo up")?;
        }
        self.ip(SWITCH, "link add br0 type bridge")?;
        self.ip(SWITCH, "link set br0 up")?;
        for (at, (name, hosts)) in HOSTS.into_iter().enumerate() {
            let port = format!("port{at}");
            self.ip(SWITCH, &format!("link add {port} type veth peer name eth0 netns {}", self.space(name)))?;
            self.ip(SWITCH, &format!("link set {port} master br0 up"))?;
            self.ip(name, "link set eth0 up")?;
            for host in hosts.clone() {
                self.ip(name, &format!("addr add {SITE}.0.{host}/16 dev eth0"))?;
            }
            self.ip(name, &format!("addr add fd77::{}/64 dev eth0 nodad", hosts.start()))?;
            if name != WORLD {
                self.ip(name, &format!("route add default via {SITE}.0.1"))?;
            }
        }
        // The world answers on every address of a network kept for examples; what goes elsewhere is lost. A network of the site
        // is full of machines with closed ports.
        self.ip(WORLD, "route add local 203.0.113.0/24 dev lo")?;
        self.ip(WORLD, "route add blackhole default")?;
        run(self.inside(WORLD).args(["sysctl", "-qw", "net.ipv4.ip_forward=1"])).or_else(|_| {
            run(self.inside(WORLD).args(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))
        })?;
        self.ip(SERVERS, &format!("route add local {SITE}.1.0/24 dev lo"))
    }

    fn write_files(&self) -> std::io::Result<()> {
        let root = self.folder();
        let at = root.display();
        for folder in ["www", "ftp"] {
            fs::create_dir_all(root.join(folder))?;
        }
        for (name, bytes) in [("index.html", 4_000), ("style.css", 9_000), ("picture.png", 120_000)] {
            fs::write(root.join("www").join(name), vec![b'x'; bytes])?;
        }
        fs::write(root.join("ftp/report.txt"), vec![b'y'; 300_000])?;
        fs::write(root.join("passwords"), "somebody:{PLAIN}right\n")?;
        for name in ["nginx-servers", "nginx-world"] {
            let text = format!(
                "daemon off; master_process off; user root; pid {at}/{name}.pid; error_log {at}/{name}.log;\n\
events {{ worker_connections 1024; }}\n\
http {{ access_log off; types {{ text/html html; }}\n\
client_body_temp_path {at}/{name}-1; proxy_temp_path {at}/{name}-2; fastcgi_temp_path {at}/{name}-3;\n\
uwsgi_temp_path {at}/{name}-4; scgi_temp_path {at}/{name}-5;\n\
server {{ listen 80; listen 8080; listen [::]:80; root {at}/www;\n\
location /private/ {{ auth_basic closed; auth_basic_user_file {at}/passwords; alias {at}/www/; }} }} }}\n"
            );
            fs::write(root.join(name), text)?;
        }
        let vsftpd = format!(
            "listen=YES\nbackground=NO\nanonymous_enable=YES\nlocal_enable=YES\nanon_root={at}/ftp\nno_anon_password=NO\n\
secure_chroot_dir={at}/empty\nseccomp_sandbox=NO\ndelay_failed_login=0\nxferlog_enable=NO\npam_service_name=vsftpd\n"
        );
        fs::create_dir_all(root.join("empty"))?;
        fs::write(root.join("vsftpd.conf"), vsftpd)?;
        let sshd = format!(
            "ListenAddress 0.0.0.0\nHostKey {at}/host\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n\
AuthorizedKeysFile {at}/user.pub\nPasswordAuthentication yes\nMaxStartups 200\nLogLevel QUIET\n"
        );
        fs::write(root.join("sshd.conf"), sshd)?;
        // Anonymous users must be able to walk in.
        use std::os::unix::fs::PermissionsExt;
        for folder in ["", "www", "ftp"] {
            fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o755))?;
        }
        let askpass = root.join("askpass");
        fs::write(&askpass, "#!/bin/sh\necho wrong\n")?;
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o755))
    }

    fn serve(&mut self) -> Result<(), String> {
        let at = self.folder().to_path_buf();
        for key in ["host", "user"] {
            let mut command = Command::new("ssh-keygen");
            run(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at.join(key)))?;
        }
        // sshd insists on this folder, and Debian's service makes it.
        fs::create_dir_all("/run/sshd").map_err(|error| format!("/run/sshd: {error}"))?;
        let file = |name: &str| at.join(name).display().to_string();
        let me = std::env::current_exe().map_err(|error| error.to_string())?.display().to_string();
        let dns = "-k -C /dev/null --no-resolv --no-hosts --user=root --pid-file= --local=/test/ --address=/site.test/10.77.0.20 \
--address=/data.test/10.77.0.21 --address=/file.site.test/10.77.0.21 --txt-record=txt.site.test,hello";
        let servers: [(&str, &str, Vec<String>, &[u16]); 7] = [
            (SERVERS, "nginx", vec!["-c".into(), file("nginx-servers")], &[80, 8080]),
            (WORLD, "nginx", vec!["-c".into(), file("nginx-world")], &[80]),
            (SERVERS, "vsftpd", vec![file("vsftpd.conf")], &[21]),
            (SERVERS, "sshd", vec!["-D".into(), "-f".into(), file("sshd.conf")], &[22]),
            (SERVERS, "dnsmasq", dns.split(' ').map(str::to_owned).collect(), &[53]),
            (WORLD, &me, vec!["role".into(), "sink".into(), "443".into(), "tunnel".into()], &[443]),
            (SERVERS, &me, vec!["role".into(), "sink".into(), "502".into(), "4444".into()], &[502, 4444]),
        ];
        for (name, server, arguments, ports) in servers {
            let path = program(server).unwrap_or_else(|| PathBuf::from(server));
            let log =
                fs::File::create(at.join(format!("{name}-{}.out", ports[0]))).map_err(|e| e.to_string())?;
            let mut command = self.inside(name);
            command.arg(path).args(arguments).stdout(Stdio::null()).stderr(log);
            let child = command.spawn().map_err(|error| format!("{server}: {error}"))?;
            self.servers.push((format!("{server} in {name}"), child));
            self.listens(name, server, ports)?;
        }
        Ok(())
    }

    /// Waits until somebody listens on the ports, as the kernel says.
    fn listens(&mut self, name: &str, server: &str, ports: &[u16]) -> Result<(), String> {
        let since = Instant::now();
        loop {
            let listening = run(self.inside(name).args(["ss", "-Hltn"]))?;
            let open = |port: &u16| listening.contains(&format!(":{port} "));
            if ports.iter().all(open) {
                return Ok(());
            }
            let (_, child) = self.servers.last_mut().ok_or("no server")?;
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || since.elapsed() > READY {
                let said = fs::read_to_string(self.folder().join(format!("{name}-{}.out", ports[0])));
                return Err(format!("{server} does not listen: {}", said.unwrap_or_default().trim()));
            }
            std::thread::yield_now();
        }
    }

    /// Starts tcpdump on the switch, which sees every frame once.
    pub(crate) fn record(&mut self) -> Result<(), String> {
        let mut command = self.inside(SWITCH);
        command.args([
            "tcpdump",
            "-i",
            "br0",
            "-s",
            "1600",
            "-B",
            "65536",
            "--immediate-mode",
            "-U",
            "-Z",
            "root",
            "-w",
        ]);
        command.arg(self.folder().join("lab.pcap")).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let said = child.stderr.take().map(BufReader::new).ok_or("tcpdump has no voice")?;
        self.tcpdump = Some((child, said));
        let (_, said) = self.tcpdump.as_mut().ok_or("tcpdump is gone")?;
        let mut line = String::new();
        while !line.contains("listening on") {
            if said.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
                return Err(format!("tcpdump does not start: {}", line.trim()));
            }
        }
        Ok(())
    }

    /// Ends the recording; its bytes.
    pub(crate) fn recorded(&mut self) -> Result<Vec<u8>, String> {
        let Some((mut tcpdump, mut log)) = self.tcpdump.take() else {
            return Err("nothing is recorded".to_owned());
        };
        // `ip netns exec` has become tcpdump.
        run(Command::new("kill").args(["-INT", &tcpdump.id().to_string()]))?;
        tcpdump.wait().map_err(|error| error.to_string())?;
        let mut said = String::new();
        log.read_to_string(&mut said).map_err(|error| error.to_string())?;
        if !said.contains("\n0 packets dropped by kernel") {
            return Err(format!("the recording is not whole: {said}"));
        }
        fs::read(self.folder().join("lab.pcap")).map_err(|error| error.to_string())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (_, child) in self.servers.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some((tcpdump, _)) = &mut self.tcpdump {
            let _ = tcpdump.kill();
            let _ = tcpdump.wait();
        }
        for name in [ATTACKERS, PEOPLE, SERVERS, WORLD, SWITCH] {
            // Processes that servers left behind (a session of sshd) live in no other namespace.
            if let Ok(left) = run(Command::new("ip").args(["netns", "pids", &self.space(name)])) {
                for pid in left.split_whitespace() {
                    let _ = run(Command::new("kill").args(["-KILL", pid]));
                }
            }
            let _ = run(Command::new("ip").args(["netns", "del", &self.space(name)]));
        }
    }
}
