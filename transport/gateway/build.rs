//! Puts the dashboard into the crate, if it was built: every file of `web/dist`, by its path.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let web = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../../web");
    let dist = web.join("dist");
    println!("cargo:rerun-if-changed=build.rs");
    let mut files = Vec::new();
    if dist.is_dir() {
        println!("cargo:rerun-if-changed={}", dist.display());
        list(&dist, &mut files)?;
        files.sort();
    } else if web.is_dir() {
        // To be here when it is built. A path that does not exist would count as changed every time.
        println!("cargo:rerun-if-changed={}", web.display());
    }
    let mut code = String::from("&[\n");
    for file in files {
        let Ok(name) = file.strip_prefix(&dist) else { continue };
        let name: Vec<_> = name.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        let path = fs::canonicalize(&file)?;
        let _ =
            writeln!(code, "    ({:?}, include_bytes!({:?})),", name.join("/"), path.display().to_string());
    }
    code.push(']');
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("dashboard.rs"), code)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
