//! Configurations to begin with.

/// A configuration to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    text: Option<&'static str>,
}

/// All of them.
pub const TEMPLATES: [Template; 4] = [
    Template {
        name: "minimal",
        about: "the usual streams on this machine alone",
        text: Some(include_str!("../templates/minimal.toml")),
    },
    Template {
        name: "market",
        about: "bars by time, trades and session, roll-ups and indicators",
        text: Some(include_str!("../templates/market.toml")),
    },
    Template {
        name: "network",
        about: "windows of traffic per host",
        text: Some(include_str!("../templates/network.toml")),
    },
    Template { name: "full", about: "every key with its meaning, range and default", text: None },
];

impl Template {
    /// The one of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        TEMPLATES.into_iter().find(|template| template.name == name)
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        self.text.map_or_else(full, str::to_owned)
    }
}

/// Every key: set to its default where there is one, commented out where there is none.
fn full() -> String {
    use crate::sections::Config;
    let mut text = String::from("# Every key of a Tidegate server, with its default.\n");
    for section in Config::sections() {
        let name = section.name;
        // A repeating section is there or not.
        let absent = section.repeats;
        let mark = if absent { "# " } else { "" };
        let header = if section.repeats { format!("[[{name}]]") } else { format!("[{name}]") };
        text += &format!("\n{}{mark}{header}\n", comment(&section.about));
        for key in &section.keys {
            text += &comment(&format!("{} Allowed: {}.", key.about, key.kind));
            match (&key.default, absent) {
                (Some(default), false) => text += &format!("{} = {default}\n", key.name),
                (Some(default), true) => text += &format!("# {} = {default}\n", key.name),
                (None, _) => text += &format!("# {} =\n", key.name),
            }
        }
    }
    text
}

/// Comment lines of a readable width.
fn comment(text: &str) -> String {
    const WIDTH: usize = 110;
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + word.len() >= WIDTH {
            lines += &line;
            lines.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line += word;
    }
    lines + &line + "\n"
}
