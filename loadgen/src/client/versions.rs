//! Which version of an API to speak: the newest that the broker and our codec share (ApiVersions, key 18).

use kafka_protocol::{messages::ApiVersionsResponse, protocol::Request};

use crate::client::error::ClientError;

/// API keys above this are not ours to use.
const KEYS_MAX: usize = 128;

/// The version ranges that one broker announced.
#[derive(Clone, Debug)]
pub struct Versions {
    ranges: [Option<(i16, i16)>; KEYS_MAX],
    /// For how long the broker wants silence after the handshake; 0 if it does not.
    pub throttle_time_ms: i32,
}

impl Versions {
    pub fn none() -> Self {
        Self { ranges: [None; KEYS_MAX], throttle_time_ms: 0 }
    }

    pub fn from_response(response: &ApiVersionsResponse) -> Self {
        let mut versions = Self { throttle_time_ms: response.throttle_time_ms.max(0), ..Self::none() };
        for api in &response.api_keys {
            let slot = usize::try_from(api.api_key).ok().and_then(|key| versions.ranges.get_mut(key));
            if let Some(slot) = slot {
                *slot = Some((api.min_version, api.max_version));
            }
        }
        versions
    }

    /// The newest version of `R` that both sides know, at most `cap`.
    /// # Errors  `Unsupported` when there is none.
    pub fn pick_at_most<R: Request>(&self, cap: i16) -> Result<i16, ClientError> {
        let announced = usize::try_from(R::KEY).ok().and_then(|key| self.ranges.get(key).copied().flatten());
        let Some((min, max)) = announced else {
            let detail = "it does not announce it".to_owned();
            return Err(ClientError::Unsupported { api: R::KEY, detail });
        };
        let best = max.min(R::VERSIONS.max).min(cap);
        if best < min.max(R::VERSIONS.min) {
            let detail = format!(
                "it announces versions {min} to {max}, we speak {} to {}",
                R::VERSIONS.min,
                R::VERSIONS.max.min(cap)
            );
            return Err(ClientError::Unsupported { api: R::KEY, detail });
        }
        Ok(best)
    }

    pub fn pick<R: Request>(&self) -> Result<i16, ClientError> {
        self.pick_at_most::<R>(i16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{FetchRequest, ProduceRequest, api_versions_response::ApiVersion};

    use super::*;

    fn announced(key: i16, min: i16, max: i16) -> Versions {
        let api = ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max);
        Versions::from_response(&ApiVersionsResponse::default().with_api_keys(vec![api]))
    }

    #[test]
    fn newest_in_common_is_taken() {
        assert_eq!(announced(0, 0, 99).pick::<ProduceRequest>().unwrap(), 13);
        assert_eq!(announced(0, 0, 7).pick::<ProduceRequest>().unwrap(), 7);
        assert_eq!(announced(1, 4, 18).pick_at_most::<FetchRequest>(12).unwrap(), 12);
    }

    #[test]
    fn nothing_in_common_is_an_error() {
        assert!(announced(0, 0, 2).pick::<ProduceRequest>().is_err());
        assert!(announced(0, 50, 60).pick::<ProduceRequest>().is_err());
        assert!(announced(1, 0, 9).pick::<ProduceRequest>().is_err());
        assert!(announced(-5, 0, 9).pick::<ProduceRequest>().is_err());
    }
}
