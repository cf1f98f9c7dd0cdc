//! How far the segments of logs reach that were cut: what was cut off does not count.

use super::{cuts::CutsAhead, journals::Journals, rescues::Rescues};
use crate::{
    base::{Map, Offset, PartitionKey},
    log::{
        journal::{
            block,
            entry::{Entry, end_of},
        },
        settings::RecoverError,
    },
};

/// Counts anew how far the segments of logs reach that were cut.
pub async fn recount(journals: &mut Journals, rescues: &Rescues) -> Result<(), RecoverError> {
    if !journals.has_cuts() {
        return Ok(());
    }
    let mut recount = Recount { ahead: journals.cuts_ahead(), ends: Map::default() };
    for rescue in rescues.iter().filter_map(|(_, rescue)| rescue.as_ref().ok()) {
        for index in 0..rescue.len() {
            // The partition goes offline when it is read for its entries.
            let Ok(block) = rescue.block(index).await else { break };
            recount.pass(&block);
        }
    }
    for core in 0..journals.cores() {
        for index in 0..journals.len(core) {
            recount.pass(&journals.block(core, index).await?);
        }
    }
    let Recount { ahead, ends } = recount;
    journals.segment_ends.retain(|(key, _), _| !ahead.contains_key(key));
    journals.segment_ends.extend(ends);
    Ok(())
}

struct Recount {
    ahead: Map<PartitionKey, CutsAhead>,
    ends: Map<(PartitionKey, Offset), Offset>,
}

impl Recount {
    fn pass(&mut self, block: &[u8]) {
        for entry in block::entries(block).map_while(Result::ok) {
            let Some(ahead) = self.ahead.get_mut(&entry.key()) else { continue };
            if ahead.pass(&entry)
                && let Entry::Append { head, batch } = entry
            {
                let end = self.ends.entry((head.key, head.segment_base)).or_default();
                *end = end_of(&head, batch).max(*end);
            }
        }
    }
}
