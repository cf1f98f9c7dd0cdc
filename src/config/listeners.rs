//! `listeners`, `advertised.listeners` and their names.

use std::fmt;

/// A place to listen on, or to be reached at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, in capitals.
    pub name: String,
    /// The host, IPv6 without brackets. Empty is every interface; `localhost` is both loopback addresses.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// What is spoken there.
    pub protocol: SecurityProtocol,
}

/// Kafka's security protocols. The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// No security.
    Plaintext = 0,
    /// TLS.
    Ssl = 1,
    /// SASL without TLS.
    SaslPlaintext = 2,
    /// SASL within TLS.
    SaslSsl = 3,
}

impl SecurityProtocol {
    fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Some(Self::Plaintext),
            "SSL" => Some(Self::Ssl),
            "SASL_PLAINTEXT" => Some(Self::SaslPlaintext),
            "SASL_SSL" => Some(Self::SaslSsl),
            _ => None,
        }
    }

    /// Kafka's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "{}://[{}]:{}", self.name, self.host, self.port)
        } else {
            write!(out, "{}://{}:{}", self.name, self.host, self.port)
        }
    }
}

/// `listener.security.protocol.map`: names in capitals and their protocols.
/// # Errors  What is wrong, in words.
pub(super) fn protocol_map(text: &str) -> Result<Vec<(String, SecurityProtocol)>, String> {
    let mut map: Vec<(String, SecurityProtocol)> = Vec::new();
    for pair in super::value::list(text).filter(|pair| !pair.is_empty()) {
        let (name, protocol) = pair.split_once(':').ok_or_else(|| format!("{pair} is not NAME:PROTOCOL"))?;
        let name = name.trim().to_ascii_uppercase();
        let protocol = SecurityProtocol::parse(protocol)
            .ok_or_else(|| format!("{protocol} is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"))?;
        if map.iter().any(|(known, _)| *known == name) {
            return Err(format!("{name} occurs twice"));
        }
        map.push((name, protocol));
    }
    Ok(map)
}

/// The listeners in a list such as `PLAINTEXT://localhost:9092,CONTROLLER://[::1]:9093`.
/// # Errors  What is wrong, in words.
pub(super) fn parse(text: &str, map: &[(String, SecurityProtocol)]) -> Result<Vec<Listener>, String> {
    super::value::list(text).map(|element| parse_one(element, map)).collect()
}

fn parse_one(text: &str, map: &[(String, SecurityProtocol)]) -> Result<Listener, String> {
    let malformed = || format!("{text} is not NAME://host:port");
    let (name, address) = text.split_once("://").ok_or_else(malformed)?;
    let (host, port) = self::address(address).ok_or_else(malformed)?;
    if name.is_empty() {
        return Err(malformed());
    }
    let port = port.parse().map_err(|_| format!("{port} in {text} is no port (0 to 65535)"))?;
    let name = name.to_ascii_uppercase();
    let protocol = map
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, protocol)| *protocol)
        .ok_or_else(|| format!("{name} is not in listener.security.protocol.map"))?;
    Ok(Listener { name, host: host.to_owned(), port, protocol })
}

/// The host, without brackets and perhaps empty, and what stands where the port should, of `host:port`.
pub(super) fn address(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None => host,
    };
    let known = |letter: char| letter.is_ascii_alphanumeric() || "-%._:".contains(letter);
    host.chars().all(known).then_some((host, port))
}

/// Whether every listener has a name and a port of its own.
/// # Errors  What is wrong, in words.
pub(super) fn distinct(listeners: &[Listener]) -> Result<(), String> {
    for (index, listener) in listeners.iter().enumerate() {
        for other in &listeners[..index] {
            if other.name == listener.name {
                return Err(format!("{} occurs twice", listener.name));
            }
            let other_family = other.host.contains(':') != listener.host.contains(':');
            if other.port == listener.port && listener.port != 0 && !other_family {
                return Err(format!("{other} and {listener} have the same port"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        let map = protocol_map("CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,out:SASL_SSL").expect("a good map");
        match parse(text, &map).and_then(|listeners| distinct(&listeners).map(|()| listeners)) {
            Ok(listeners) => {
                let words: Vec<_> = listeners.iter().map(|l| format!("{l} {}", l.protocol.name())).collect();
                words.join("; ")
            }
            Err(why) => why,
        }
    }

    #[test]
    fn listeners_are_read() {
        assert_eq!(
            check("PLAINTEXT://:9092,CONTROLLER://localhost:9093"),
            "PLAINTEXT://:9092 PLAINTEXT; CONTROLLER://localhost:9093 PLAINTEXT"
        );
        assert_eq!(
            check("plaintext://[::1]:0 , OUT://a-b.c:1"),
            "PLAINTEXT://[::1]:0 PLAINTEXT; OUT://a-b.c:1 SASL_SSL"
        );
        assert_eq!(
            check("PLAINTEXT://0.0.0.0:9092,CONTROLLER://[::]:9092"),
            "PLAINTEXT://0.0.0.0:9092 PLAINTEXT; CONTROLLER://[::]:9092 PLAINTEXT"
        );
    }

    #[test]
    fn bad_listeners_are_named() {
        assert_eq!(check("localhost:9092"), "localhost:9092 is not NAME://host:port");
        assert_eq!(check("PLAINTEXT://localhost"), "PLAINTEXT://localhost is not NAME://host:port");
        assert_eq!(check("PLAINTEXT://[::1:9092"), "PLAINTEXT://[::1:9092 is not NAME://host:port");
        assert_eq!(check("PLAINTEXT://a b:1"), "PLAINTEXT://a b:1 is not NAME://host:port");
        assert_eq!(check("PLAINTEXT://:65536"), "65536 in PLAINTEXT://:65536 is no port (0 to 65535)");
        assert_eq!(check("PLAINTEXT://:-1"), "-1 in PLAINTEXT://:-1 is no port (0 to 65535)");
        assert_eq!(check("INSIDE://:1"), "INSIDE is not in listener.security.protocol.map");
        assert_eq!(check("PLAINTEXT://:1,PLAINTEXT://:2"), "PLAINTEXT occurs twice");
        assert_eq!(
            check("PLAINTEXT://a:1,CONTROLLER://b:1"),
            "PLAINTEXT://a:1 and CONTROLLER://b:1 have the same port"
        );
        assert_eq!(protocol_map("A:TLS"), Err("TLS is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL".into()));
        assert_eq!(protocol_map("A"), Err("A is not NAME:PROTOCOL".into()));
    }
}
