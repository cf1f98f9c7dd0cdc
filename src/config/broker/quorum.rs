//! The controller quorum. Nothing of it is kept yet: it can only be this process.

use crate::{
    base::BrokerId,
    config::{
        listeners::Listener,
        load::{ConfigError, Places},
        value,
        values::Values,
    },
};

/// Refuses a quorum of others: to ignore it would make a second cluster beside the one that is meant.
/// # Errors  The quorum is not this broker with these listeners of its controller.
pub(super) fn check(
    values: &Values<'_>,
    places: &Places,
    id: BrokerId,
    controllers: &[Listener],
) -> Result<(), ConfigError> {
    let alone = "not supported yet: a Ringtail stands alone; it can only name itself";
    let key = "controller.quorum.voters";
    let voters = &values.word(key);
    for voter in value::list(voters) {
        let voter = voter.split_once('@').and_then(|(voter, _)| value::number(voter));
        let voter = voter.ok_or_else(|| places.error(key, voters, "must be id@host:port"))?;
        if voter != i64::from(id.0) {
            return Err(places.error(key, voters, alone));
        }
    }
    let key = "controller.quorum.bootstrap.servers";
    let servers = &values.word(key);
    for (index, server) in value::list(servers).enumerate() {
        let (host, port) = server.rsplit_once(':').ok_or_else(|| places.error(key, servers, "must be host:port"))?;
        let port: u16 = port.parse().map_err(|_| places.error(key, servers, "must be host:port"))?;
        let own_port = controllers.is_empty() || controllers.iter().any(|listener| listener.port == port);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let own_host = matches!(host, "localhost" | "127.0.0.1" | "::1")
            || controllers.iter().any(|listener| listener.host.is_empty() || listener.host == host);
        if index > 0 || !own_port || !own_host {
            return Err(places.error(key, servers, alone));
        }
    }
    Ok(())
}
