//! The command itself: what it says when it cannot do its work.

use std::process::{Command, Output};

fn yardstick(part: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-yardstick"));
    command.arg(part).arg("--data").arg(folder.path()).arg("--out").arg(folder.path().join("out"));
    command.output().unwrap()
}

#[test]
fn an_unknown_part_names_those_there_are() {
    let output = yardstick("nonsense");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(words.contains("there is no part `nonsense`; available are: bars, indicators"), "{words}");
}

#[test]
fn a_folder_without_input_is_an_error() {
    let output = yardstick("bars");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot list"));
}

#[test]
fn an_extra_of_another_part_is_an_error() {
    for (option, said) in [("--folds", "`--folds` is for part `nab`"), ("--baseline", "is for part `darpa`")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-yardstick"));
        let output = command.args(["bars", "--data", "x", "--out", "x", option]).output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{output:?}");
    }
}
