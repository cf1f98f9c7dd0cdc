//! Who this process is and what it may have of its machine.

use crate::{
    base::BrokerId,
    config::{
        load::{ConfigError, Places},
        value,
        values::Values,
    },
};

/// The process's settings. They stay as they are while it runs.
#[derive(Clone, Debug)]
pub(crate) struct NodeConfig {
    /// `node.id`.
    pub(crate) id: BrokerId,
    /// `broker.rack`.
    pub(crate) rack: Option<String>,
    /// `cores`: empty, a number or a list. The command line parses it.
    pub(crate) cores: String,
    /// `io.ring` is `own`.
    pub(crate) own_ring: bool,
    /// `memory.bytes`; none: a quarter of what there is.
    pub(crate) memory_bytes: Option<u64>,
}

impl NodeConfig {
    /// # Errors  The id has two values, or the process is to be less than a broker and a controller.
    pub(super) fn read(values: &Values<'_>, places: &Places) -> Result<Self, ConfigError> {
        let id = id(values, places)?;
        check_roles(values, places)?;
        Ok(Self {
            id,
            rack: values.text("broker.rack"),
            cores: values.word("cores"),
            own_ring: values.word("io.ring") == "own",
            memory_bytes: values.limit("memory.bytes"),
        })
    }
}

fn id(values: &Values<'_>, places: &Places) -> Result<BrokerId, ConfigError> {
    let older = values.given("broker.id").and_then(value::number).filter(|id| *id >= 0);
    let newer = values.given("node.id").and_then(value::number);
    if let (Some(older), Some(newer)) = (older, newer)
        && older != newer
    {
        return Err(places.error("broker.id", &older.to_string(), &format!("must be the same as node.id={newer}")));
    }
    Ok(BrokerId(if older.is_some() { values.int("broker.id") } else { values.int("node.id") }))
}

fn check_roles(values: &Values<'_>, places: &Places) -> Result<(), ConfigError> {
    let key = "process.roles";
    let roles = values.word(key);
    if ["broker", "controller"].iter().all(|role| value::list(&roles).any(|given| given == *role)) {
        return Ok(());
    }
    Err(places.error(key, &roles, "not supported yet: every node is both; must be broker,controller"))
}
