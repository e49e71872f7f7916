//! Configurations: any bytes end in a configuration that can be built, or in problems that name their places.

use tidegate_config::{Config, TEMPLATES, changes};

/// A configuration file.
pub fn read(bytes: &[u8]) {
    match tidegate_config::read(bytes) {
        Ok(read) => {
            let plan = read.config.plan().expect("what was read can be built");
            assert!(plan.stages().is_ok());
            // What is shown reads back as the same.
            let shown = written(&read.config);
            match tidegate_config::read(shown.as_bytes()) {
                Ok(again) => assert_eq!(again.config, read.config, "{shown}"),
                Err(problems) => panic!("{shown}\n{problems}"),
            }
            assert!(changes(&read.config, &read.config).is_empty());
            let mut running = Config::default();
            changes(&Config::default(), &read.config).apply(&mut running, &read.config);
            assert!(changes(&running, &read.config).0.iter().eq(changes(&running, &read.config).restarts()));
        }
        Err(problems) => {
            assert!(!problems.list.is_empty());
            let text = problems.render("file", false);
            assert!(!text.contains('\x1b') && text.len() < 64 << 10, "{} bytes", text.len());
            for problem in &problems.list {
                assert!(problem.line >= 1 && problem.column >= 1);
                assert!(problem.at.start <= bytes.len(), "{problem:?}");
            }
        }
    }
}

/// A configuration as text.
fn written(config: &Config) -> String {
    let mut text = String::new();
    for section in Config::sections() {
        let count = if section.repeats { config.repeated(section.name) } else { 1 };
        let keys = |at| {
            let set = section
                .keys
                .iter()
                .filter_map(move |key| Some((key.name, config.show(section.name, at, key.name)?)));
            set.map(|(key, value)| format!("{key} = {value}\n")).collect::<String>()
        };
        for at in 0..count {
            if section.repeats {
                text += &format!("[[{}]]\n{}", section.name, keys(at));
            } else {
                text += &format!("[{}]\n{}", section.name, keys(at));
            }
        }
    }
    text
}

/// Seeds: the templates, and mistakes of every kind.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mistakes = [
        "[engine]\nshrads = 2\nshards = 0x_2\nidle = \"spni\"\n",
        "[listen]\nquic = \"[::1]:0\"\nhttp = \"off\"\n[data]\nfolder = 'x\\\\y'\n",
        "engine = { shards = 2, fence = \"off\" }\nstream = [{ bars = \"1s\" }, { hosts = \"1m\" }]\n",
        "[[stream]]\nbars = \"1h@1m@1s\"\n[[stream]]\nbars = \"1m@1s\"\n[[stream]]\nbars = \"1s\"\nlate = \"drop\"\nhistory = false\n",
        "[tls]\ncert = \"a\"\n[auth]\nrequired = true\n[[auth.rule]]\nprincipal = \"x\"\nverbs = [\"publish\"]\n[quotas]\nsymbols = 1\n",
        "[limits]\nmtu = 1_200\nkeep_alive = \"1.5s\"\n\u{feff}# \u{202e}\n[gateway]\nhosts = [\"\\u001b\"]\n",
    ];
    let templates = TEMPLATES.iter().map(|template| template.text().into_bytes());
    templates.chain(mistakes.iter().map(|text| text.as_bytes().to_vec())).collect()
}
