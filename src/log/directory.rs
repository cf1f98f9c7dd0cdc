//! The data directory: whose it is, and the small files of Kafka's in its root.
//!
//! While Ringtail runs, and after a crash, `meta.properties` carries a version that Kafka refuses, because Kafka would
//! stop at the zeros behind a segment's end and ignore the journal. A clean stop puts Kafka's version back.

use std::{io, path::Path};

use crate::io::Io;

/// Kafka's file of cluster, node and directory ids.
pub const META_PROPERTIES: &str = "meta.properties";
/// Kafka's mark of a clean stop.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";

/// Kafka knows 0 and 1, and refuses to start on anything else.
const VERSION_RUNNING: &str = "1000";
const VERSION_STOPPED: &str = "1";

/// Tells our directories from Kafka's. The number is that of our own files' format. A broker that knows only 1 would not
/// find the journals and checkpoints of 2 under their names, and must not begin anew beside them.
const FORMAT_KEY: &str = "ringtail.format";
const FORMAT: &str = "2";
/// Of the ids; absent in format 1.
const SUM_KEY: &str = "ringtail.sum";
const FORMATS_READ: [&str; 2] = ["1", FORMAT];

/// `meta.properties`, as `storage format` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// `cluster.id`
    pub cluster_id: String,
    /// `node.id`
    pub node_id: i32,
    /// `directory.id`, as Kafka prints ids.
    pub directory_id: String,
}

impl MetaProperties {
    /// The file's text. `running` makes it one that Kafka refuses.
    #[must_use]
    pub fn text(&self, running: bool) -> String {
        let version = if running { VERSION_RUNNING } else { VERSION_STOPPED };
        format!(
            "version={version}\ncluster.id={}\nnode.id={}\ndirectory.id={}\n{FORMAT_KEY}={FORMAT}\n{SUM_KEY}={}\n",
            self.cluster_id,
            self.node_id,
            self.directory_id,
            self.sum()
        )
    }

    /// CRC-32C of what no key of Kafka's would betray if a bit of it were wrong.
    fn sum(&self) -> String {
        let ids = format!("{}\n{}\n{}", self.cluster_id, self.node_id, self.directory_id);
        format!("{:08x}", crc32c::crc32c(ids.as_bytes()))
    }

    /// Reads the file's text.
    /// # Errors  Why it is not ours.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .map(|it| it.1.trim())
        };
        match value(FORMAT_KEY) {
            None => return Err("it was written by Apache Kafka".into()),
            Some(format) if FORMATS_READ.contains(&format) => {}
            Some(other) => return Err(format!("it was written by another version of Ringtail (format {other})")),
        }
        let missing = |key: &str| format!("its {META_PROPERTIES} lacks {key}");
        let meta = Self {
            cluster_id: value("cluster.id").ok_or_else(|| missing("cluster.id"))?.to_owned(),
            node_id: value("node.id").and_then(|id| id.parse().ok()).ok_or_else(|| missing("node.id"))?,
            directory_id: value("directory.id").unwrap_or_default().to_owned(),
        };
        // Format 1 had none.
        match value(SUM_KEY) {
            Some(sum) if sum != meta.sum() => {
                Err(format!("its {META_PROPERTIES} is damaged: its sum is {}", meta.sum()))
            }
            _ => Ok(meta),
        }
    }
}

/// Writes `meta.properties`, making the directory if need be.
/// # Errors  The system's.
#[cfg(test)]
pub async fn write_meta(io: &Io, directory: &Path, meta: &MetaProperties, running: bool) -> io::Result<()> {
    io.disk.create_dir_all(directory).await?;
    io.disk.replace_file(&directory.join(META_PROPERTIES), meta.text(running).as_bytes()).await
}

/// Rewrites the version in `meta.properties` if there is one.
pub async fn mark(io: &Io, directory: &Path, running: bool) -> io::Result<()> {
    let path = directory.join(META_PROPERTIES);
    if !io.disk.exists(&path).await {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&io.disk.read_file(&path).await?).into_owned();
    match MetaProperties::parse(&text) {
        Ok(meta) if text != meta.text(running) => io.disk.replace_file(&path, meta.text(running).as_bytes()).await,
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_properties_read_back_and_kafkas_are_refused() {
        let meta = MetaProperties { cluster_id: "abc".into(), node_id: 7, directory_id: "dir".into() };
        assert_eq!(MetaProperties::parse(&meta.text(true)), Ok(meta.clone()));
        assert_eq!(MetaProperties::parse(&meta.text(false)), Ok(meta.clone()));
        assert_eq!(MetaProperties::parse(&meta.text(false).replace("format=2", "format=1")), Ok(meta.clone()));
        assert!(meta.text(true).starts_with("version=1000\n"), "Kafka must refuse it");
        assert!(meta.text(false).starts_with("version=1\n"));
        let flipped = meta.text(true).replace("cluster.id=abc", "cluster.id=abd");
        assert!(MetaProperties::parse(&flipped).unwrap_err().contains("damaged"));
        let format_1 = "version=1\ncluster.id=abc\nnode.id=7\ndirectory.id=dir\nringtail.format=1\n";
        assert_eq!(MetaProperties::parse(format_1), Ok(meta), "without a sum");
        assert!(MetaProperties::parse("version=1\ncluster.id=x\nnode.id=1\n").unwrap_err().contains("Kafka"));
        assert!(MetaProperties::parse("ringtail.format=3\n").unwrap_err().contains("format 3"));
    }
}
