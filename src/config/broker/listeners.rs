//! Where the broker listens and what clients are told.

use crate::config::{
    listeners::{self, Listener, SecurityProtocol},
    load::{ConfigError, Places},
    value,
    values::Values,
};

/// The listeners. They stay as they are while the process runs.
#[derive(Clone, Debug)]
pub(crate) struct ListenersConfig {
    /// What to bind: `listeners` without the controller's.
    pub(crate) bound: Vec<Listener>,
    /// What clients are told, by listener name. An empty host is up to the caller: the machine's name; port 0 is the one
    /// that was bound.
    pub(crate) advertised: Vec<Listener>,
    /// The controller's, which are never advertised. Nobody comes to those of a node that stands alone.
    pub(crate) controllers: Vec<Listener>,
    /// The name of the advertised listener that brokers use among themselves.
    #[allow(dead_code, reason = "the cluster is being put together: who reads it comes with it")]
    pub(crate) inter_broker: String,
}

impl ListenersConfig {
    /// # Errors  A listener that cannot be bound or found, or none.
    pub(super) fn read(values: &Values<'_>, places: &Places) -> Result<Self, ConfigError> {
        let (bound, controllers) = split(values, places)?;
        let advertised = advertised(values, places, &bound)?;
        let inter_broker = inter_broker(values, places, &advertised)?;
        Ok(Self { bound, advertised, controllers, inter_broker })
    }
}

fn split(values: &Values<'_>, places: &Places) -> Result<(Vec<Listener>, Vec<Listener>), ConfigError> {
    let map = protocols(values, places)?;
    let key = "listeners";
    let given = &values.word(key);
    let all = listeners::parse(given, &map)
        .and_then(|all| listeners::distinct(&all).map(|()| all))
        .map_err(|why| places.error(key, given, &why))?;
    let of_controller = controller_names(values);
    let (controllers, brokers): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|listener| of_controller.contains(&listener.name));
    if let Some(listener) = brokers.iter().find(|listener| listener.protocol != SecurityProtocol::Plaintext) {
        let why = format!(
            "not supported yet: {} is a {} listener; only PLAINTEXT can be bound",
            listener.name,
            listener.protocol.name()
        );
        return Err(places.error(key, given, &why));
    }
    if brokers.is_empty() {
        return Err(places.error(key, given, "there is no listener for clients, such as PLAINTEXT://localhost:9092"));
    }
    Ok((brokers, controllers))
}

fn protocols(values: &Values<'_>, places: &Places) -> Result<Vec<(String, SecurityProtocol)>, ConfigError> {
    let key = "listener.security.protocol.map";
    let given = &values.word(key);
    let mut map = listeners::protocol_map(given).map_err(|why| places.error(key, given, &why))?;
    // Kafka lets controller listeners go unmapped when nobody set the map.
    if values.given(key).is_none() {
        for name in controller_names(values) {
            if !map.iter().any(|(known, _)| *known == name) {
                map.push((name, SecurityProtocol::Plaintext));
            }
        }
    }
    Ok(map)
}

fn controller_names(values: &Values<'_>) -> Vec<String> {
    value::list(&values.word("controller.listener.names")).map(str::to_ascii_uppercase).collect()
}

fn advertised(values: &Values<'_>, places: &Places, bound: &[Listener]) -> Result<Vec<Listener>, ConfigError> {
    let (key, given) = match values.text("advertised.listeners") {
        Some(given) => ("advertised.listeners", given),
        None => ("listeners", values.word("listeners")),
    };
    let map = protocols(values, places)?;
    let all = listeners::parse(&given, &map).map_err(|why| places.error(key, &given, &why))?;
    let advertised: Vec<_> = all.into_iter().filter(|one| bound.iter().any(|b| b.name == one.name)).collect();
    if let Some(listener) = advertised.iter().find(|listener| matches!(listener.host.as_str(), "0.0.0.0" | "::")) {
        let why = format!("clients cannot connect to {}: give advertised.listeners a host name", listener.host);
        return Err(places.error(key, &given, &why));
    }
    if let Some(listener) = bound.iter().find(|b| !advertised.iter().any(|one| one.name == b.name)) {
        return Err(places.error(key, &given, &format!("{} is missing", listener.name)));
    }
    Ok(advertised)
}

/// The listener of that name; or of the name of the protocol, which is PLAINTEXT; or the first.
fn inter_broker(values: &Values<'_>, places: &Places, advertised: &[Listener]) -> Result<String, ConfigError> {
    let (by_name, by_protocol) = ("inter.broker.listener.name", "security.inter.broker.protocol");
    let protocol = values.word(by_protocol);
    if protocol != SecurityProtocol::Plaintext.name() {
        return Err(places.error(by_protocol, &protocol, "not supported yet: must be PLAINTEXT"));
    }
    let named = |name: &str| advertised.iter().find(|listener| listener.name.eq_ignore_ascii_case(name));
    match values.text(by_name) {
        Some(name) if values.given(by_protocol).is_some() => {
            Err(places.error(by_name, &name, &format!("only one of it and {by_protocol} can be set")))
        }
        Some(name) => match named(&name) {
            Some(listener) => Ok(listener.name.clone()),
            None => Err(places.error(by_name, &name, "must be the name of an advertised listener")),
        },
        None => {
            let listener = named(&protocol).or(advertised.first());
            Ok(listener.expect("there is a listener for clients").name.clone())
        }
    }
}
