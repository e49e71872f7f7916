//! Any text ends in a configuration that can be built and reads back as itself, or in problems with places.

use proptest::prelude::*;
use tidegate_config::{Config, TEMPLATES, Template, changes, read};

/// Pieces that texts are made of.
const PIECES: [&str; 34] = [
    "[engine]\n",
    "[[stream]]\n",
    "[[stream]",
    "[listen]\n",
    "[limits]\n",
    "[gateway]\n",
    "[tls]\n",
    "[[auth.rule]]\n",
    "bars = \"1s\"\n",
    "bars = \"1m@1s\"\n",
    "hosts = \"1m\"\n",
    "late = \"side\"\n",
    "horizon = \"4h\"\n",
    "indicators = [\"rsi:14\"]\n",
    "indicators = [3, []]\n",
    "shards = 2\n",
    "shards = 0x_f\n",
    "shards = 1e3\n",
    "idle = \"park\"\n",
    "http = \"off\"\n",
    "keep_alive = \"off\"\n",
    "= ",
    "\"",
    "'''",
    "\n",
    "# \u{202e}\u{7f}\n",
    "\u{feff}",
    "\0",
    "1979-05-27T07:32:00Z",
    "{a.b = [{}]}",
    "folder = \"\\u007f\\u001b\"\n",
    "é",
    "\"\\",
    "stream = []\n",
];

#[derive(Debug, Clone)]
enum Edit {
    Insert(usize, usize),
    Delete(usize, usize),
    Copy(usize, usize, usize),
    Byte(usize, u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || any::<prop::sample::Index>().prop_map(|index| index.index(8_192));
    prop_oneof![
        3 => (at(), 0..PIECES.len()).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        2 => (at(), 0..200usize).prop_map(|(at, count)| Edit::Delete(at, count)),
        1 => (at(), 0..200usize, at()).prop_map(|(from, count, to)| Edit::Copy(from, count, to)),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Byte(at, byte)),
    ]
}

fn apply(text: &mut Vec<u8>, edit: &Edit) {
    let within = |at: usize| if text.is_empty() { 0 } else { at % text.len() };
    match *edit {
        Edit::Insert(at, piece) => {
            let at = within(at);
            text.splice(at..at, PIECES[piece].bytes());
        }
        Edit::Delete(at, count) => {
            let at = within(at);
            text.drain(at..(at + count).min(text.len()));
        }
        Edit::Copy(from, count, to) => {
            let (from, to) = (within(from), within(to));
            let piece = text[from..(from + count).min(text.len())].to_vec();
            text.splice(to..to, piece);
        }
        Edit::Byte(at, byte) if !text.is_empty() => {
            let at = within(at);
            text[at] = byte;
        }
        Edit::Byte(..) => {}
    }
}

/// A configuration as text.
fn written(config: &Config) -> String {
    let mut text = String::new();
    for section in Config::sections() {
        let count = if section.repeats { config.repeated(section.name) } else { 1 };
        for at in 0..count {
            text += &if section.repeats {
                format!("[[{}]]\n", section.name)
            } else {
                format!("[{}]\n", section.name)
            };
            for key in &section.keys {
                if let Some(value) = config.show(section.name, at, key.name) {
                    text += &format!("{} = {value}\n", key.name);
                }
            }
        }
    }
    text
}

fn check(bytes: &[u8]) -> Result<bool, TestCaseError> {
    match read(bytes) {
        Ok(read) => {
            let plan = read.config.plan();
            prop_assert!(plan.is_ok_and(|plan| plan.stages().is_ok()));
            let text = written(&read.config);
            let again = self::read(text.as_bytes());
            let again = again.map_err(|problems| TestCaseError::fail(format!("{text}\n{problems}")))?;
            prop_assert_eq!(&again.config, &read.config, "{}", text);
            let mut running = Config::default();
            changes(&running, &read.config).apply(&mut running, &read.config);
            let left = changes(&running, &read.config);
            prop_assert_eq!(left.restarts().count(), left.0.len());
            Ok(true)
        }
        Err(problems) => {
            prop_assert!(!problems.list.is_empty());
            let text = problems.render("file", false);
            prop_assert!(!text.contains('\x1b') && text.len() < 64 << 10, "{}", text);
            for problem in &problems.list {
                prop_assert!(problem.line >= 1 && problem.column >= 1 && problem.at.start <= bytes.len());
            }
            Ok(false)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_has_an_answer(template in 0..TEMPLATES.len(), edits in prop::collection::vec(edit(), 0..12)) {
        let mut text = TEMPLATES[template].text().into_bytes();
        edits.iter().for_each(|edit| apply(&mut text, edit));
        check(&text)?;
    }

    #[test]
    fn pieces_in_any_order_have_an_answer(pieces in prop::collection::vec(0..PIECES.len(), 0..12)) {
        let text: String = pieces.iter().map(|&at| PIECES[at]).collect();
        check(text.as_bytes())?;
    }
}

/// The properties above are not empty: what is good without an edit is good.
#[test]
fn templates_read_back_as_themselves() {
    for Template { name, .. } in TEMPLATES {
        let text = Template::of(name).unwrap().text();
        assert!(check(text.as_bytes()).unwrap(), "{name}");
    }
}
