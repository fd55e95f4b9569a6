//! Embeds the page that `make page` has built into `web/dist`, or says how to build it where that is missing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What a browser is told a file is, by the end of its name.
const KINDS: [(&str, &str); 4] = [
    (".html.gz", "text/html; charset=utf-8"),
    (".js.gz", "text/javascript; charset=utf-8"),
    (".css.gz", "text/css; charset=utf-8"),
    (".svg.gz", "image/svg+xml"),
];

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var(name).map(PathBuf::from).map_err(io::Error::other);
    let root = variable("CARGO_MANIFEST_DIR")?.join("../../web/dist");
    println!("cargo::rerun-if-changed=build.rs");
    if root.is_dir() {
        // The folder is there in every checkout: it is looked at again when something is built into it.
        println!("cargo::rerun-if-changed={}", root.display());
    }
    let mut table = String::from("&[\n");
    for (folder, address) in [(root.clone(), ""), (root.join("assets"), "assets/")] {
        for file in files(&folder)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((_, kind)) = KINDS.iter().find(|(end, _)| name.ends_with(end)) else { continue };
            let path = format!("{address}{}", name.trim_end_matches(".gz"));
            writeln!(
                table,
                "    Asset {{ path: {path:?}, kind: {kind:?}, gzip: include_bytes!({:?}) }},",
                fs::canonicalize(&file)?.to_string_lossy()
            )
            .map_err(io::Error::other)?;
        }
    }
    table.push_str("]\n");
    fs::write(variable("OUT_DIR")?.join("page_assets.rs"), table)
}

/// The files of a folder in order; none if there is no such folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut out = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    out.retain(|path| path.is_file());
    out.sort();
    Ok(out)
}
