//! File systems of our own, small or read-only, where this process may mount.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A mounted file system. Unmounted when dropped.
pub struct Mount {
    path: PathBuf,
}

impl Mount {
    /// A file system of so many MiB at `path`: ext4 in a file beside it, or else in memory. None where nothing can be mounted.
    pub fn new(path: &Path, mib: u64) -> Option<Self> {
        fs::create_dir_all(path).expect("a directory below the target folder");
        let mount = Self { path: path.to_owned() };
        let image = path.with_extension("image");
        let file = fs::File::create(&image).expect("a file below the target folder");
        file.set_len(mib << 20).expect("a sparse file");
        let size = format!("size={mib}m");
        let at = path.to_str().expect("a plain path");
        let image = image.to_str().expect("a plain path");
        // Root may not have blocks of its own: the test fills the disk as root.
        let ext4 = run("mkfs.ext4", &["-q", "-F", "-m", "0", image]) && run("mount", &["-o", "loop", image, at]);
        if ext4 || run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", at]) {
            return Some(mount);
        }
        eprintln!("skipped: this process may not mount a file system");
        None
    }

    /// No write from now on.
    pub fn make_read_only(&self) {
        assert!(run("mount", &["-o", "remount,ro", self.path.to_str().expect("a plain path")]), "remount");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a broker that is still ending holds files.
        let _ = run("umount", &["-l", self.path.to_str().expect("a plain path")]);
        let _ = fs::remove_file(self.path.with_extension("image"));
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
