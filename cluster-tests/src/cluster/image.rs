//! The image of the containers that tests start: busybox, made from this machine's own.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::command::run;

/// The image in every engine: busybox.
pub const IMAGE: &str = "box";
/// What busybox is to be in it.
const APPLETS: [&str; 10] = [
    "sh", "ping", "nslookup", "wget", "nc", "httpd", "ip", "sleep", "cat", "echo",
];
/// Where a static busybox is, if it is installed.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

pub(super) fn busybox() -> anyhow::Result<&'static Path> {
    let mut places = BUSYBOX.iter().map(Path::new);
    let found = places.find(|place| place.exists());
    found.context("there is no static busybox (package busybox-static)")
}

/// Makes the image as an archive.
pub(super) async fn image(place: &Path) -> anyhow::Result<PathBuf> {
    let root = place.join("image");
    fs::create_dir_all(root.join("bin"))?;
    fs::create_dir_all(root.join("www"))?;
    fs::copy(busybox()?, root.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("www/index.html"), "hello from web\n")?;
    let archive = place.join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".");
    run(tar.into(), b"").await?.done()?;
    Ok(archive)
}
