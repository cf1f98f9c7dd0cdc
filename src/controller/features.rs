//! Levels of features (KIP-584).

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        UpdateFeaturesRequest, UpdateFeaturesResponse, update_features_request::FeatureUpdateKey,
        update_features_response::UpdatableFeatureResult,
    },
    protocol::StrBytes,
};

use super::{
    ApiError, Controller,
    start::{METADATA_VERSION, METADATA_VERSION_FEATURE},
};
use crate::{base::ErrorCode, protocol::metadata_records::MetadataRecord};

/// `FeatureUpdate.UpgradeType` of the wire.
const UPGRADE: i8 = 1;
const UPGRADE_TYPES: [i8; 3] = [UPGRADE, 2, 3];

/// The last version whose answer has a line for each feature.
const RESULTS_LAST: i16 = 1;

impl Controller {
    /// UpdateFeatures, versions 0–2: all of it or nothing. Version 0 can only upgrade: what it has for downgrades Kafka does not
    /// look at any more.
    pub fn update_features(
        &mut self,
        request: &UpdateFeaturesRequest,
        version: i16,
    ) -> (Vec<MetadataRecord>, UpdateFeaturesResponse) {
        let answer = UpdateFeaturesResponse::default().with_error_message(None);
        // The last word on a feature counts.
        let updates: BTreeMap<&str, &FeatureUpdateKey> =
            request.feature_updates.iter().map(|update| (update.feature.as_str(), update)).collect();
        let mut records = Vec::new();
        for (name, update) in updates {
            let upgrade_type = if version == 0 { UPGRADE } else { update.upgrade_type };
            match self.check_feature(name, update.max_version_level, upgrade_type) {
                Ok(()) if self.image.feature(name) == update.max_version_level => {}
                Ok(()) => records
                    .push(MetadataRecord::FeatureLevel { name: name.to_owned(), level: update.max_version_level }),
                Err(why) => {
                    return (Vec::new(), answer.with_error_code(why.code.code()).with_error_message(why.message()));
                }
            }
        }
        if request.validate_only {
            records.clear();
        }
        self.apply(&records);
        if version > RESULTS_LAST {
            return (records, answer);
        }
        let result = |update: &FeatureUpdateKey| {
            // Kafka's word for "no error" here.
            let message = StrBytes::from_static_str("NONE");
            UpdatableFeatureResult::default().with_feature(update.feature.clone()).with_error_message(Some(message))
        };
        let results = request.feature_updates.iter().map(result).collect();
        (records, answer.with_results(results))
    }

    fn check_feature(&self, name: &str, level: i16, upgrade_type: i8) -> Result<(), ApiError> {
        let node = self.config.node.id;
        let refuse = |why: String| {
            Err(ApiError::new(
                ErrorCode::InvalidUpdateVersion,
                format!(
                    "The update failed for all features since the following feature had an error: Invalid update version \
                     {level} for feature {name}. {why}"
                ),
            ))
        };
        if !UPGRADE_TYPES.contains(&upgrade_type) {
            return refuse("The controller does not support the given upgrade type.".to_owned());
        }
        if level < 0 {
            return refuse("A feature version cannot be less than 0.".to_owned());
        }
        if name != METADATA_VERSION_FEATURE {
            return refuse(format!("Local controller {node} does not support this feature."));
        }
        if level != METADATA_VERSION {
            return refuse(format!(
                "Local controller {node} only supports versions {METADATA_VERSION}-{METADATA_VERSION}"
            ));
        }
        Ok(())
    }
}
